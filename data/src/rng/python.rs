use std::collections::HashSet;

use rand_mt::Mt;

/// CPython's `random.Random`, as far as the peers use it.
pub struct PythonRandom(Mt);

impl PythonRandom {
    /// `random.Random(seed)`.
    pub fn new(seed: u64) -> Self {
        // the key is the seed in limbs of 32 bits, without leading zeros
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let key = if high == 0 { vec![low] } else { vec![low, high] };
        Self(Mt::new_with_key(key))
    }

    /// `getrandbits(bits)` for up to 32 bits.
    fn bits(&mut self, bits: u32) -> u32 {
        self.0.next_u32() >> (32 - bits)
    }

    /// A number below `n`, which is at least 1.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let value = self.bits(bits) as usize;
            if value < n {
                return value;
            }
        }
    }

    /// `randint(low, high)`, both included.
    pub fn randint(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    /// `shuffle(items)`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// `sample(range(n), count)`; `count` is at most `n`.
    pub fn sample(&mut self, n: usize, count: usize) -> Vec<usize> {
        let mut set_size = 21;
        if count > 5 {
            set_size += 4usize.pow(((3 * count) as f64).log(4.0).ceil() as u32);
        }
        if n <= set_size {
            let mut pool: Vec<usize> = (0..n).collect();
            return (0..count)
                .map(|i| {
                    let j = self.below(n - i);
                    let taken = pool[j];
                    pool[j] = pool[n - i - 1];
                    taken
                })
                .collect();
        }
        let mut taken = HashSet::new();
        let mut sample = Vec::with_capacity(count);
        while sample.len() < count {
            let j = self.below(n);
            if taken.insert(j) {
                sample.push(j);
            }
        }
        sample
    }
}
