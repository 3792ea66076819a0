//! Random numbers from a counter-based generator: a number depends only on the seed, the position and the
//! candidate's id. shaders/sample/random.wgsl computes the same.

/// A candidate's exponentially distributed waiting time. The candidate with the smallest waiting time /
/// weight is drawn, which selects each with probability proportional to its weight.
pub(super) fn wait(seed: u64, position: u32, id: u32) -> f32 {
    -ln(uniform(seed, [id, position, 0, 0]))
}

/// A uniformly distributed number between 0 and 1 for a position as a whole.
pub(super) fn coin(seed: u64, position: u32) -> f32 {
    uniform(seed, [0, position, 1, 0])
}

fn uniform(seed: u64, counter: [u32; 4]) -> f32 {
    let [word, ..] = philox(counter, [seed as u32, (seed >> 32) as u32]);
    ((word >> 9) as f32 + 0.5) / 8_388_608.0
}

/// The natural logarithm of a positive normal number (Cephes, Moshier 1984).
pub(super) fn ln(v: f32) -> f32 {
    // v = m 2^e, with m between sqrt(1/2) and sqrt(2); f = m - 1.
    let shifted = v.to_bits().wrapping_sub(0x3f35_04f3);
    let e = (shifted as i32 >> 23) as f32;
    let f = f32::from_bits((shifted & 0x007f_ffff) + 0x3f35_04f3) - 1.0;
    let z = f * f;
    let mut p = 7.037_683_6e-2;
    for c in [
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ] {
        p = p * f + c;
    }
    f + (f * z * p - 2.121_944_4e-4 * e - 0.5 * z) + 0.693_359_4 * e
}

/// Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let [a, b] = [0xD251_1F53_u64 * u64::from(counter[0]), 0xCD9E_8D57_u64 * u64::from(counter[2])];
        counter = [
            (b >> 32) as u32 ^ counter[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ counter[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(0x9E37_79B9), key[1].wrapping_add(0xBB67_AE85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vectors that Random123 publishes for philox4x32-10.
    #[test]
    fn philox_gives_the_known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn ln_is_right() {
        for i in 1..200_000 {
            for v in [i as f32 * 1e-5, 1.0 - i as f32 * 5e-8, i as f32] {
                let (got, exact) = (f64::from(ln(v)), f64::from(v).ln());
                assert!((got - exact).abs() <= exact.abs() * 3e-7, "{v}: {got} for {exact}");
            }
        }
    }
}
