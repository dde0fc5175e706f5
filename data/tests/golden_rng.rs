//! The peers' random numbers.

mod common;

use sft_data::rng::{default_rng_permutation, legacy_choice, PythonRandom};

#[test]
fn vectors_of_the_peers() {
    let Some(golden) = common::json("golden/spec/golden_rng.json") else { return };
    let expected = |name: &str| -> Vec<usize> { serde_json::from_value(golden[name].clone()).unwrap() };
    let shuffled = |seed, n: usize| {
        let mut items: Vec<usize> = (0..n).collect();
        PythonRandom::new(seed).shuffle(&mut items);
        items
    };
    let sampled = |n, count| PythonRandom::new(42).sample(n, count);
    let mut random = PythonRandom::new(42);
    let draws: Vec<usize> = (0..20).map(|_| random.randint(0, 10)).collect();
    assert_eq!(draws, expected("py_random42_randint_0_10_first20"));
    assert_eq!(shuffled(42, 10), expected("py_shuffle_seed42_n10"));
    assert_eq!(shuffled(43, 10), expected("py_shuffle_seed43_n10"));
    assert_eq!(shuffled(42, 384)[..16], expected("py_shuffle_seed42_n384_first16"));
    assert_eq!(sampled(4533, 8), expected("py_sample_seed42_n4533_k8"));
    assert_eq!(sampled(4532, 64)[..8], expected("py_sample_seed42_n4532_k64_first8"));
    assert_eq!(sampled(7316, 128)[..8], expected("py_sample_seed42_n7316_k128_first8"));
    assert_eq!(sampled(36259, 128)[..8], expected("py_sample_seed42_n36259_k128_first8"));
    assert_eq!(sampled(20, 6), expected("py_sample_seed42_n20_k6_poolpath"));
    assert_eq!(default_rng_permutation(&[42], 10), expected("np_default_rng42_permutation10"));
    assert_eq!(default_rng_permutation(&[42], 4532)[..8], expected("np_default_rng42_permutation4532_first8"));
    assert_eq!(legacy_choice(42, 4533, 8), expected("pd_sample8_rs42_n4533"));
}
