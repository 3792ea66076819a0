//! Compares a pass on a device with its definition.

use super::{Check, MATRIX_TOLERANCE, TOLERANCE};
use crate::{
    backend::{Backend, CpuBackend, wait},
    buffers::{Content, Per, Rows, Use},
    capabilities::Capabilities,
    error::Result,
    kernel::Kernel,
    kv_format::KvFormat,
    plan::Plans,
    step::Step,
    workload::Phase,
};

/// Runs one pass on both backends and compares what it writes. `can` is what the tested device's dispatches
/// are made for.
pub fn compare(
    definition: &mut CpuBackend,
    tested: &mut dyn Backend,
    can: &Capabilities,
    (phase, pass): (Phase, usize),
    step: &Step,
) -> Result<Check> {
    definition.submit_passes(phase, pass..pass + 1, step)?;
    tested.submit_passes(phase, pass..pass + 1, step)?;
    let mut max_error = 0.0f64;
    let kernel = &definition.plans().of(phase).passes[pass].kernel;
    let (name, note) = (kernel.name(), kernel.note());
    let is_rounded = can.matrices.is_some() && phase == Phase::Prefill && name == "matmul";
    let mut tolerance = if is_rounded { MATRIX_TOLERANCE } else { TOLERANCE };
    for written in written(definition.plans(), &**kernel, step) {
        match written {
            Written::Rows(rows, count, format) => {
                let (words, got) = (wait(definition.read(rows, count))?, wait(tested.read(rows, count))?);
                let unpacked = |words: &[f32]| match format {
                    None => words.to_vec(),
                    Some((format, stride)) => format.unpack_slots(words, stride as usize),
                };
                let (expected, got) = (unpacked(&words), unpacked(&got));
                let scale = expected.iter().fold(1.0f32, |top, v| top.max(v.abs()));
                for (got, expected) in got.iter().zip(&expected) {
                    max_error = worse(max_error, f64::from((got - expected).abs() / scale));
                }
                // Numbers between two that a format has may be rounded to either.
                let error = format.map_or(0.0, |(format, _)| format.error());
                tolerance += 2.0 * error;
                if is_rounded || error > 0.0 {
                    // The next passes are compared on the same values.
                    tested.write(rows, &words)?;
                }
            }
            Written::Picked => {
                for (got, expected) in wait(tested.read_ids())?.into_iter().zip(wait(definition.read_ids())?)
                {
                    let error =
                        if got.id == expected.id { got.probability - expected.probability } else { 1.0 };
                    max_error = worse(max_error, f64::from(error.abs()));
                }
            }
        }
    }
    let phase = format!("{phase:?}").to_lowercase();
    let variant = if note.is_empty() { phase } else { format!("{phase}, {note}") };
    // NaN fails this comparison, too.
    Ok(Check { kernel: name, variant, max_error, tolerance, ok: max_error <= tolerance })
}

/// The larger error. NaN counts as the largest, while `f64::max` would ignore it.
pub(super) fn worse(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

enum Written {
    /// So many rows. Those of a cache are words of slots, of so many each, in a format.
    Rows(Rows, usize, Option<(KvFormat, u32)>),
    Picked,
}

/// What a pass writes.
fn written(plans: &Plans, kernel: &dyn Kernel, step: &Step) -> Vec<Written> {
    let load = step.load();
    let one = |u: Use| {
        let Use::Write(buffer) = u else { return None };
        Some(match *plans.buffers.content(buffer) {
            Content::Activation { per, stride } => {
                let rows = Rows { buffer, width: stride, per };
                Written::Rows(rows, per.count(&load) as usize, None)
            }
            Content::Cache { stride, format } => {
                let slots = plans.buffers.bytes(buffer, &plans.sizes) / 4 / u64::from(stride);
                Written::Rows(
                    Rows { buffer, width: stride * slots as u32, per: Per::Row },
                    1,
                    Some((format, stride)),
                )
            }
            Content::Ids => Written::Picked,
            // Loaded contents are not written, and partial results are internal to the pass.
            Content::Loaded(_) | Content::Partials { .. } => return None,
        })
    };
    kernel.uses().into_iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::worse;

    #[test]
    fn an_error_that_is_no_number_is_not_forgotten() {
        let all = |errors: &[f64]| errors.iter().fold(0.0, |a, b| worse(a, *b));
        assert!(all(&[0.1, f64::NAN, 0.2]).is_nan());
        assert_eq!(all(&[0.1, 0.3, 0.2]), 0.3);
    }
}
