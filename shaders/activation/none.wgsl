// Implements interface `activation`: the identity.
fn activate(v: f32) -> f32 { return v; }
