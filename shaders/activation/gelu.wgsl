// Implements interface `activation`: exact GELU, v Φ(v), with the error function approximated by Abramowitz &
// Stegun 7.1.26 (error at most 1.5e-7).
fn activate(v: f32) -> f32 {
    let z = min(abs(v) * 0.7071067812, 9.0);
    let t = 1.0 / (1.0 + 0.3275911 * z);
    let series = t
        * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    let tail = 0.5 * series * exp(-z * z); // probability that a standard normal variable exceeds |v|
    return v * select(1.0 - tail, tail, v < 0.0);
}
