//! The activation functions of MLPs, applied as part of a matmul. Each has a file in shaders/activation/.

use crate::{architecture::Activation, simd::exp};

impl Activation {
    pub(super) fn shader(self) -> &'static str {
        match self {
            Self::None => include_str!("../../shaders/activation/none.wgsl"),
            Self::Relu => include_str!("../../shaders/activation/relu.wgsl"),
            Self::Silu => include_str!("../../shaders/activation/silu.wgsl"),
            Self::Tanh => include_str!("../../shaders/activation/tanh.wgsl"),
            Self::Gelu => include_str!("../../shaders/activation/gelu.wgsl"),
            Self::GeluTanh => include_str!("../../shaders/activation/gelu_tanh.wgsl"),
            Self::QuickGelu => include_str!("../../shaders/activation/quick_gelu.wgsl"),
        }
    }

    /// Applies the function to each value, in place.
    #[inline(always)]
    pub fn apply(self, values: &mut [f32]) {
        // A separate loop per function, so that the compiler vectorises each.
        macro_rules! each {
            ($of:expr) => {
                for v in values {
                    *v = $of(*v);
                }
            };
        }
        match self {
            Self::None => {}
            Self::Relu => each!(|v: f32| v.max(0.0)),
            Self::Silu => each!(|v: f32| v / (1.0 + exp(-v.max(-80.0)))),
            Self::Tanh => each!(f32::tanh),
            Self::Gelu => each!(gelu),
            Self::GeluTanh => each!(gelu_tanh),
            Self::QuickGelu => each!(|v: f32| v / (1.0 + exp(-1.702 * v.max(-40.0)))),
        }
    }
}

/// GELU with the error function approximated by Abramowitz & Stegun 7.1.26 (error at most 1.5e-7).
#[inline(always)]
fn gelu(v: f32) -> f32 {
    let z = (v.abs() * std::f32::consts::FRAC_1_SQRT_2).min(9.0);
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series =
        t * (0.254_829_6 + t * (-0.284_496_74 + t * (1.421_413_8 + t * (-1.453_152 + t * 1.061_405_4))));
    let tail = 0.5 * series * exp(-z * z);
    v * if v < 0.0 { tail } else { 1.0 - tail }
}

#[inline(always)]
fn gelu_tanh(v: f32) -> f32 {
    let u = 0.797_884_6 * (v + 0.044715 * v * v * v);
    v / (1.0 + exp(-2.0 * u.clamp(-40.0, 40.0)))
}
