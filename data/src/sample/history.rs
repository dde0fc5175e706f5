use rand::Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::items::{FAMILIES, PLACES};
use super::{Item, SampleOptions};

/// One sample: what a user had bought (indices of items, oldest first, at most ten) and what came next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purchase {
    /// Number of the user.
    pub user: usize,
    /// Items before.
    pub history: Vec<usize>,
    /// The next item.
    pub target: usize,
}

/// Longest history, as upstream cuts it.
const MAX_HISTORY: usize = 10;

/// Training, validation and test samples: all samples by time of the target, cut 8 : 1 : 1 (upstream's split).
pub(super) fn splits(items: &[Item], options: &SampleOptions) -> [Vec<Purchase>; 3] {
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed.wrapping_add(1));
    let mut timed: Vec<(u64, Purchase)> = Vec::new();
    for user in 0..options.users {
        let mut bought = vec![popular(&mut rng, items.len())];
        let mut time = rng.random_range(0..1_000_000u64);
        for _ in 0..rng.random_range(4..12) {
            let next = successor(&mut rng, items, bought[bought.len() - 1]);
            time += rng.random_range(1..50_000);
            let history = bought[bought.len().saturating_sub(MAX_HISTORY)..].to_vec();
            timed.push((time, Purchase { user, history, target: next }));
            bought.push(next);
        }
    }
    timed.sort_by_key(|(time, purchase)| (*time, purchase.user));
    let mut all: Vec<Purchase> = timed.into_iter().map(|(_, purchase)| purchase).collect();
    let (eight, nine) = (all.len() * 8 / 10, all.len() * 9 / 10);
    let test = all.split_off(nine);
    let valid = all.split_off(eight);
    [all, valid, test]
}

/// What is bought after an item: mostly something of the same family, often the next in it; sometimes its counterpart in
/// the family that goes with it, now and then anything.
fn successor(rng: &mut ChaCha8Rng, items: &[Item], last: usize) -> usize {
    let Item { family, place, .. } = items[last];
    let partner = (family * 5 + 7) % FAMILIES;
    match rng.random_range(0..100) {
        0..40 => family * PLACES + (place + 1) % PLACES,
        40..70 => family * PLACES + rng.random_range(0..PLACES),
        70..90 => partner * PLACES + place,
        _ => popular(rng, items.len()),
    }
}

/// An item at random, of which some are bought more often than others.
fn popular(rng: &mut ChaCha8Rng, items: usize) -> usize {
    let unit: f64 = rng.random();
    // the density falls from 1.6 times the mean to 0.7 times it
    let skewed = unit.powf(1.6);
    ((skewed * items as f64) as usize * 37) % items
}
