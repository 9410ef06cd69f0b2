//! The Tiny Encryption Algorithm as a hash: the text is the key, and the state is encrypted.

use std::num::Wrapping;

/// The increment of the sum in each round: 2^32 divided by the golden ratio.
const DELTA: Wrapping<u32> = Wrapping(0x9e37_79b9);
const ROUNDS: u32 = 16;

/// Words of input in each step.
pub(crate) const WORDS: usize = 4;

/// Mixes a block of input into the first half of the state.
pub(crate) fn step(state: &mut [u32; 4], text: [u32; WORDS]) {
    let [a, b, c, d] = text.map(Wrapping);
    let [first, second, ..] = state;
    let (mut x, mut y) = (Wrapping(*first), Wrapping(*second));
    let mut sum = Wrapping(0);
    for _ in 0..ROUNDS {
        sum += DELTA;
        x += ((y << 4) + a) ^ (y + sum) ^ ((y >> 5) + b);
        y += ((x << 4) + c) ^ (x + sum) ^ ((x >> 5) + d);
    }
    *first = first.wrapping_add(x.0);
    *second = second.wrapping_add(y.0);
}
