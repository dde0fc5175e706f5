/// Puts examples of these lengths into as few rows of `capacity` tokens as first-fit-decreasing finds; returns the
/// indices of each row's examples. No example is longer than a row.
pub(super) fn pack(lengths: &[usize], capacity: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(lengths[i]), i));
    let mut rows: Vec<(usize, Vec<usize>)> = Vec::new();
    for i in order {
        match rows.iter_mut().find(|(free, _)| *free >= lengths[i]) {
            Some((free, row)) => {
                *free -= lengths[i];
                row.push(i);
            }
            None => rows.push((capacity - lengths[i], vec![i])),
        }
    }
    rows.into_iter().map(|(_, row)| row).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn rows_hold_every_example_once_and_never_too_much() {
        let lengths: Vec<usize> = (0..200).map(|i| 1 + (i * 37) % 97).collect();
        let rows = super::pack(&lengths, 100);
        let mut all: Vec<usize> = rows.concat();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
        assert!(rows.iter().all(|row| row.iter().map(|&i| lengths[i]).sum::<usize>() <= 100));
        let least = lengths.iter().sum::<usize>().div_ceil(100);
        assert!(rows.len() <= least + least / 10 + 1, "{} rows, at least {least}", rows.len());
    }
}
