//! Counter-based random numbers: a number is a function of a seed and of what it is for, never of what was drawn before.
//! So neither the order of the work nor its partition can change a result.

/// Returns 64 random bits for (`seed`, `key`): each part is mixed in with splitmix64's finaliser (Steele, Lea, Flood 2014).
#[must_use]
pub fn bits(seed: u64, key: &[u64]) -> u64 {
    let start = mix(seed.wrapping_add(GOLDEN));
    key.iter().fold(start, |state, part| {
        mix(state.wrapping_add(GOLDEN) ^ mix(*part))
    })
}

/// Binomial thinning: returns how many of `count` things go to the first half, each by one random bit.
#[must_use]
pub fn thin(seed: u64, key: &[u64], count: u32) -> u32 {
    let words = (0..count.div_ceil(64)).map(|index| {
        let used = (count - index * 64).min(64);
        let random = mix(bits(seed, key).wrapping_add(GOLDEN) ^ mix(u64::from(index)));
        (random >> (64 - used)).count_ones()
    });
    words.sum()
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
