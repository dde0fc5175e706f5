use rand::RngCore;
use rand_mt::Mt;
use rand_pcg::Pcg64;

/// `numpy.random.default_rng(seed).permutation(n)`; `seed` may have several words (`default_rng([a, b])`).
pub fn default_rng_permutation(seed: &[u32], n: usize) -> Vec<usize> {
    let mut rng = Generator::new(seed);
    shuffled(n, || rng.next_u32())
}

/// `numpy.random.RandomState(seed).choice(n, count, replace=False)`, which is what `DataFrame.sample` takes.
pub fn legacy_choice(seed: u32, n: usize, count: usize) -> Vec<usize> {
    let mut mt = Mt::new(seed);
    let mut items = shuffled(n, || mt.next_u32());
    items.truncate(count);
    items
}

/// NumPy's shuffle of `range(n)`: Fisher and Yates, each index drawn under the smallest mask that covers it.
fn shuffled(n: usize, mut next_u32: impl FnMut() -> u32) -> Vec<usize> {
    let mut items: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        let mask = u32::MAX >> (i as u32).leading_zeros();
        let j = loop {
            let value = (next_u32() & mask) as usize;
            if value <= i {
                break value;
            }
        };
        items.swap(i, j);
    }
    items
}

/// `numpy.random.Generator(PCG64(seed))`: 32-bit numbers come in halves of 64-bit ones, low half first.
struct Generator {
    pcg: Pcg64,
    half: Option<u32>,
}

impl Generator {
    fn new(seed: &[u32]) -> Self {
        let words = SeedSequence::new(seed).generate_u64::<4>();
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        Self { pcg: Pcg64::new(wide(words[0], words[1]), wide(words[2], words[3])), half: None }
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(high) = self.half.take() {
            return high;
        }
        let both = self.pcg.next_u64();
        self.half = Some((both >> 32) as u32);
        both as u32
    }
}

/// `numpy.random.SeedSequence` (O'Neill's `seed_seq`): spreads the entropy of a seed over a pool of four words.
struct SeedSequence([u32; 4]);

const INIT_A: u32 = 0x43b0_d7e5;
const MULT_A: u32 = 0x931e_8875;
const INIT_B: u32 = 0x8b51_f9dd;
const MULT_B: u32 = 0x58f3_8ded;
const MIX_LEFT: u32 = 0xca01_f9dd;
const MIX_RIGHT: u32 = 0x4973_f715;

impl SeedSequence {
    fn new(entropy: &[u32]) -> Self {
        let mut constant = INIT_A;
        let mut hash = |value: u32| {
            let mut value = value ^ constant;
            constant = constant.wrapping_mul(MULT_A);
            value = value.wrapping_mul(constant);
            value ^ value >> 16
        };
        let mix = |x: u32, y: u32| {
            let mixed = MIX_LEFT.wrapping_mul(x).wrapping_sub(MIX_RIGHT.wrapping_mul(y));
            mixed ^ mixed >> 16
        };
        let mut pool = [0; 4];
        for (i, slot) in pool.iter_mut().enumerate() {
            *slot = hash(entropy.get(i).copied().unwrap_or(0));
        }
        for source in 0..4 {
            for target in 0..4 {
                if source != target {
                    pool[target] = mix(pool[target], hash(pool[source]));
                }
            }
        }
        for &word in entropy.get(4..).unwrap_or_default() {
            for slot in &mut pool {
                *slot = mix(*slot, hash(word));
            }
        }
        Self(pool)
    }

    fn generate_u64<const N: usize>(&self) -> [u64; N] {
        let mut constant = INIT_B;
        let mut pool = self.0.iter().cycle();
        let mut word = || {
            // cycling never ends
            let mut value = pool.next().copied().unwrap_or(0) ^ constant;
            constant = constant.wrapping_mul(MULT_B);
            value = value.wrapping_mul(constant);
            u64::from(value ^ value >> 16)
        };
        std::array::from_fn(|_| word() | word() << 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_are_numpys() {
        let sequence = SeedSequence::new(&[42]);
        assert_eq!(sequence.0, [1662858758, 128880814, 1875164712, 753753205]);
        let words: [u64; 2] = sequence.generate_u64();
        assert_eq!(words, [2669555309 << 32 | 3444837047, 3581440988 << 32 | 2046530742]);
        let mut generator = Generator::new(&[42]);
        assert_eq!([generator.pcg.next_u64(), generator.pcg.next_u64()], [14276969152011380360, 8095878257575067585]);
    }
}
