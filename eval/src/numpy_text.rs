//! `str(numpy.ndarray)` of a one-dimensional float64 array with numpy's default print options.

/// Digits after the point at most (`precision`).
const PRECISION: usize = 8;
/// `linewidth`, less the closing bracket.
const LINE_WIDTH: usize = 75 - 1;

/// Formats finite values the way numpy prints them, with its choice of notation, padding and line breaks.
///
/// Follows `numpy/core/arrayprint.py` (`FloatingFormat`, `_formatArray`) at `floatmode="maxprec"`, `suppress=False`,
/// for arrays below its threshold of 1,000 elements.
pub(crate) fn array_text(values: &[f64]) -> String {
    let mut text = String::from("[");
    let mut line_length = 1;
    for (index, word) in words(values).into_iter().enumerate() {
        let blank = usize::from(index > 0);
        if index > 0 && line_length + blank + word.len() > LINE_WIDTH {
            text.push_str("\n ");
            line_length = 1;
        } else if index > 0 {
            text.push(' ');
            line_length += 1;
        }
        line_length += word.len();
        text.push_str(&word);
    }
    text.push(']');
    text
}

fn words(values: &[f64]) -> Vec<String> {
    let magnitudes = || values.iter().map(|value| value.abs()).filter(|&magnitude| magnitude != 0.0);
    let largest = magnitudes().fold(0.0, f64::max);
    let smallest = magnitudes().fold(f64::INFINITY, f64::min);
    let scientific = largest >= 1e8 || smallest < 1e-4 || largest / smallest > 1000.0;

    // (integer part, fraction without trailing zeros, exponent): the digits are rounded exactly, half to even.
    let parts: Vec<(String, String, String)> = values
        .iter()
        .map(|value| {
            let text = if scientific { format!("{value:.PRECISION$e}") } else { format!("{value:.PRECISION$}") };
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, ""));
            let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
            let exponent = match exponent.strip_prefix('-') {
                Some(magnitude) => format!("e-{magnitude:0>2}"),
                None if scientific => format!("e+{exponent:0>2}"),
                None => String::new(),
            };
            (integer.to_owned(), fraction.trim_end_matches('0').to_owned(), exponent)
        })
        .collect();
    let integer_width = parts.iter().map(|(integer, ..)| integer.len()).max().unwrap_or(0);
    let fraction_width = parts.iter().map(|(_, fraction, _)| fraction.len()).max().unwrap_or(0);
    let pad = if scientific { '0' } else { ' ' };
    parts
        .into_iter()
        .map(|(integer, fraction, exponent)| {
            let padding: String = std::iter::repeat_n(pad, fraction_width - fraction.len()).collect();
            format!("{integer:>integer_width$}.{fraction}{padding}{exponent}")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::array_text;

    /// Right: what numpy 1.26.4 prints.
    #[test]
    fn prints_as_numpy_does() {
        let n = 4533.0;
        let cases: &[(&[f64], &str)] = &[
            (&[], "[]"),
            (&[0.0; 6], "[0. 0. 0. 0. 0. 0.]"),
            (&[1.0; 3], "[1. 1. 1.]"),
            (&[0.109375, 0.15625, 0.203125, 0.234375], "[0.109375 0.15625  0.203125 0.234375]"),
            // Halves of the eighth digit go to the even one.
            (&[1.0 / 512.0, 3.0 / 512.0, 0.5], "[0.00195312 0.00585938 0.5       ]"),
            (&[1.0 / 8192.0, 1.0 / 1024.0, 0.1], "[0.00012207 0.00097656 0.1       ]"),
            (&[1.0 / 3.0, 1.0, 0.125], "[0.33333333 1.         0.125     ]"),
            // Scientific below 1e-4 or beyond a ratio of 1000, never at it.
            (&[0.001, 1.0], "[0.001 1.   ]"),
            (&[0.00099, 1.0], "[9.9e-04 1.0e+00]"),
            (&[0.0, 0.0, 0.00003], "[0.e+00 0.e+00 3.e-05]"),
            (&[1.0 / n, 3.0 / n, 0.25], "[2.20604456e-04 6.61813369e-04 2.50000000e-01]"),
            (
                &[0.05, 1.0 / 7.0, 1.0 / n, 0.2, 0.3, 0.4],
                "[5.00000000e-02 1.42857143e-01 2.20604456e-04 2.00000000e-01\n 3.00000000e-01 4.00000000e-01]",
            ),
        ];
        for (values, text) in cases {
            assert_eq!(array_text(values), *text, "{values:?}");
        }
    }
}
