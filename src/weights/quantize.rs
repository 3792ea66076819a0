//! Which format each matrix gets when a model is quantised: a rule over the tensors' specs, which loading and
//! writing then follow.

use super::{Checkpoint, Format, ModelTensors, TensorSpec};

/// What quantising makes of a model's matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantized {
    /// Matrices that are packed anew.
    pub packed: usize,
    /// Those of them whose rows are no whole number of blocks, so that a format with smaller blocks took its place.
    pub fallbacks: usize,
    /// Matrices that were stored in fewer bits already, and stay so: more bits would not bring back what is lost.
    pub kept: usize,
}

impl Format {
    /// One step finer. Q8_0 is the finest of blocks.
    fn finer(self) -> Self {
        match self {
            Self::Q2_K => Self::Q3_K,
            Self::Q3_K => Self::Q4_K,
            Self::Q4_K => Self::Q5_K,
            Self::Q5_K => Self::Q6_K,
            Self::MXFP4 | Self::IQ4_NL | Self::Q4_0 => Self::Q5_0,
            Self::Q4_1 => Self::Q5_1,
            Self::Q5_0 | Self::Q5_1 | Self::Q6_K => Self::Q8_0,
            Self::Q8_0 | Self::F16 | Self::BF16 | Self::F32 => self,
        }
    }

    /// For the head, and an embedding that is the head too: one step finer, and Q6_K at least, as llama.cpp has it.
    /// Every logit passes through it: SmolLM2-135M in Q4_0 loses 3 % of perplexity where its head is in Q5_0.
    fn for_head(self) -> Self {
        let finer = self.finer();
        if finer.bits() < Self::Q6_K.bits() { Self::Q6_K } else { finer }
    }

    /// For the matrices that suffer most from two bits: v, and those whose results go into the residual.
    fn for_sensitive(self) -> Self {
        if self == Self::Q2_K { Self::Q3_K } else { self }
    }

    /// This format, or the nearest finer one whose blocks fill rows of so many columns (as llama.cpp chooses it).
    fn fitting(self, columns: u32) -> Self {
        let fits = |format: Self| (columns as usize).is_multiple_of(format.block_values());
        let smaller = match self {
            Self::Q2_K | Self::Q3_K => Self::Q4_0,
            Self::Q4_K => Self::Q5_0,
            Self::Q5_K => Self::Q5_1,
            Self::Q6_K => Self::Q8_0,
            _ => Self::F16,
        };
        [self, smaller].into_iter().find(|format| fits(*format)).unwrap_or(Self::F16)
    }
}

impl ModelTensors {
    /// Has every matrix packed as `to`, the embedding and the head finer. Norms and biases are f32 in any case;
    /// learned positions, of which a token reads one row, and what sees images stay as they are stored.
    pub fn quantize(&mut self, to: Format, checkpoint: &Checkpoint) -> Quantized {
        let mut quantized = Quantized::default();
        let spellings = self.spellings;
        let mut pack = |spec: &mut TensorSpec, to: Format| {
            let Some(stored) =
                checkpoint.find(&spec.name, spellings).and_then(|(_, entry)| entry.tensor.as_ref())
            else {
                return; // What is missing is found out when the weights are loaded.
            };
            let format = to.fitting(spec.columns());
            if stored.format == format {
                return;
            }
            if stored.format.bits() < format.bits() {
                quantized.kept += 1;
                return;
            }
            spec.format = Some(format);
            quantized.packed += 1;
            quantized.fallbacks += usize::from(format != to);
        };
        pack(&mut self.tokens, if self.head.is_some() { to.finer() } else { to.for_head() });
        for layer in &mut self.layers {
            // Where q, k and v are one matrix, it is v too.
            let (v, qk) = layer.qkv.split_last_mut().expect("at least one matrix");
            qk.iter_mut().chain(&mut layer.up).for_each(|spec| pack(spec, to));
            [v, &mut layer.out, &mut layer.down].into_iter().for_each(|spec| pack(spec, to.for_sensitive()));
        }
        if let Some(head) = &mut self.head {
            pack(head, to.for_head());
        }
        quantized
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_no_whole_blocks_fall_back() {
        for (format, of_32, of_none) in [
            (Format::Q2_K, Format::Q4_0, Format::F16),
            (Format::Q3_K, Format::Q4_0, Format::F16),
            (Format::Q4_K, Format::Q5_0, Format::F16),
            (Format::Q5_K, Format::Q5_1, Format::F16),
            (Format::Q6_K, Format::Q8_0, Format::F16),
            (Format::Q8_0, Format::Q8_0, Format::F16),
            (Format::F32, Format::F32, Format::F32),
        ] {
            assert_eq!(format.fitting(512), format);
            assert_eq!(format.fitting(96), of_32);
            assert_eq!(format.fitting(50), of_none);
        }
    }
}
