// Implements interface `activation`: the tanh approximation of GELU (Hendrycks & Gimpel 2016), computed as
// v sigmoid(2u), which equals v 0.5 (1 + tanh u) but keeps its precision where tanh u is near -1.
fn activate(v: f32) -> f32 {
    let u = 0.7978845608 * (v + 0.044715 * v * v * v);
    return v / (1.0 + exp(-2.0 * clamp(u, -40.0, 40.0)));
}
