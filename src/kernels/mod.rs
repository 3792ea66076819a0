//! The kernels: what a pass of a plan computes. Each has a file, with its operands, its WGSL programs and
//! their grids, and the same computation in plain Rust: the definition that the programs are tested against.

use crate::kernel::Target;

mod activate;
mod activation;
mod adjust;
mod attention;
mod attention_weights;
mod embed;
mod hadamard;
mod head_norm;
mod heads;
mod kv;
mod kv_write;
mod matmul;
mod norm;
mod rope;
mod sample;
mod scale_adapter;
mod score;
mod splice;

pub use activate::activate;
pub use adjust::adjust;
pub use attention::{Partials, attention};
pub use attention_weights::attention_weights;
pub use embed::{By, embed};
pub use hadamard::hadamard;
pub use head_norm::head_norm;
pub use kv::{Cache, CachePart};
pub use kv_write::kv_write;
pub use matmul::{Input, matmul, normed};
pub use norm::norm;
pub use rope::{RopeTable, rope};
pub use sample::{Candidates, sample};
pub use scale_adapter::scale_adapter;
pub use score::score;
pub use splice::splice;

/// The import for interface `step`, which every program has: name and source.
const STEP: (&str, &str) = ("step", include_str!("../../shaders/step.wgsl"));

/// The import for interface `pair`, the rotation of a pair of values: name and source.
const PAIR: (&str, &str) = ("pair", include_str!("../../shaders/turn/pair.wgsl"));

/// The import for interface `reduce`: with subgroup operations if the device has them, else through workgroup
/// memory.
fn reduce(target: &Target) -> (&'static str, &'static str) {
    let source = if target.can.subgroups {
        include_str!("../../shaders/reduce/subgroup.wgsl")
    } else {
        include_str!("../../shaders/reduce/shared.wgsl")
    };
    ("reduce", source)
}

/// A boolean as the value of a shader constant.
fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}
