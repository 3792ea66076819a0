//! The exponential function, in a form that the compiler vectorises.

/// e^v, within 2 units in the last place. For v < -87 the result is 0, for v > 88 it is e^88. NaN stays NaN.
#[inline(always)]
pub fn exp(v: f32) -> f32 {
    // v = n ln 2 + r with |r| ≤ ln 2 / 2. ln 2 is split into two parts; the product of n and the first part
    // is exact.
    let v = if v < -87.0 { -200.0 } else { v };
    let v = if v > 88.0 { 88.0 } else { v };
    // Adding and subtracting 1.5 · 2²³ rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    let n = (v * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = v - n * 0.693_359_4;
    let r = r + n * 2.121_944_4e-4;
    // A polynomial near the Taylor series, with coefficients fitted to the interval (Cephes, Moshier 1984).
    let p = 1.987_569_1e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let e = p * r * r + r + 1.0;
    // 2^n from its exponent bits; 0 if n is too small.
    let exponent = (n + 127.0).max(0.0) as i32;
    e * f32::from_bits((exponent as u32) << 23)
}

#[cfg(test)]
mod tests {
    #[test]
    fn exp_is_right() {
        for i in -880_000..880_000 {
            let v = i as f32 * 1e-4;
            let (got, exact) = (f64::from(super::exp(v)), f64::from(v).exp());
            assert!((got - exact).abs() <= exact * 2.5e-7 + 2e-38, "{v}: {got} for {exact}");
        }
        assert_eq!(super::exp(-1e30), 0.0);
        assert_eq!(super::exp(f32::NEG_INFINITY), 0.0);
        assert!(super::exp(f32::NAN).is_nan());
    }
}
