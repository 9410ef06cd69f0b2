//! The "half MD4" hash: MD4 with half of the steps in each round, on blocks of 32 bytes.

/// Words of input in each step.
pub(crate) const WORDS: usize = 8;

type Mix = fn(u32, u32, u32) -> u32;

/// A round: the mixing function, the constant to add, the order of the input words, and the
/// rotations.
struct Round {
    mix: Mix,
    constant: u32,
    order: [usize; WORDS],
    rotations: [u32; 4],
}

const ROUNDS: [Round; 3] = [
    Round {
        mix: |x, y, z| (x & y) | (!x & z),
        constant: 0,
        order: [0, 1, 2, 3, 4, 5, 6, 7],
        rotations: [3, 7, 11, 19],
    },
    Round {
        mix: |x, y, z| (x & y) | (x & z) | (y & z),
        constant: 0x5a82_7999,
        order: [1, 3, 5, 7, 0, 2, 4, 6],
        rotations: [3, 5, 9, 13],
    },
    Round {
        mix: |x, y, z| x ^ y ^ z,
        constant: 0x6ed9_eba1,
        order: [3, 7, 2, 6, 1, 5, 0, 4],
        rotations: [3, 9, 11, 15],
    },
];

/// Mixes a block of input into the state.
pub(crate) fn step(state: &mut [u32; 4], text: [u32; WORDS]) {
    let [mut a, mut b, mut c, mut d] = *state;
    for Round { mix, constant, order, rotations } in &ROUNDS {
        for (index, rotation) in order.iter().zip(rotations.iter().cycle()) {
            let word = text.get(*index).copied().unwrap_or_default();
            let sum = a.wrapping_add(mix(b, c, d)).wrapping_add(word).wrapping_add(*constant);
            // Rotate the roles of the state words for the next step.
            (a, b, c, d) = (d, sum.rotate_left(*rotation), b, c);
        }
    }
    for (word, added) in state.iter_mut().zip([a, b, c, d]) {
        *word = word.wrapping_add(added);
    }
}
