// Implements interface `activation`: tanh(v). The clamp keeps exp finite; beyond it, tanh rounds to exactly
// +-1.
fn activate(v: f32) -> f32 { return 1.0 - 2.0 / (exp(2.0 * clamp(v, -15.0, 15.0)) + 1.0); }
