//! Which format each matrix gets when a model is quantised. The rule sets the formats in the tensors' specs,
//! by which the weights are then loaded or written.

use super::{Checkpoint, Format, ModelTensors, TensorSpec};

/// How many matrices quantisation changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantized {
    /// Matrices that get another format.
    pub packed: usize,
    /// Those among `packed` that got a format with smaller blocks, because their rows are not whole blocks of
    /// the one chosen first.
    pub fallbacks: usize,
    /// Matrices that keep their format because it has fewer bits already: more bits would not restore what is
    /// lost.
    pub kept: usize,
}

impl Format {
    /// The next format with more bits. Q8_0 has the most bits of the block formats.
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

    /// The format of the head, and of an embedding that is also the head: the next finer one, and at least
    /// Q6_K, as in llama.cpp. Every logit depends on the head: SmolLM2-135M in Q4_0 loses 3 % of perplexity
    /// if its head is in Q5_0.
    fn for_head(self) -> Self {
        let finer = self.finer();
        if finer.bits() < Self::Q6_K.bits() { Self::Q6_K } else { finer }
    }

    /// The format of the matrices that lose most at two bits: v, and those that write to the residual stream.
    fn for_sensitive(self) -> Self {
        if self == Self::Q2_K { Self::Q3_K } else { self }
    }

    /// This format if rows of `columns` values are whole blocks of it, else the nearest finer one for which
    /// they are, chosen as llama.cpp does.
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
    /// Sets the format of every matrix to `to`, and that of the embedding and the head to a finer one. Norms
    /// and biases are f32 in any case. Learned position embeddings, of which a token reads only one row, and
    /// the vision tower stay as stored.
    pub fn quantize(&mut self, to: Format, checkpoint: &Checkpoint) -> Quantized {
        let mut quantized = Quantized::default();
        let spellings = self.spellings;
        let mut pack = |spec: &mut TensorSpec, to: Format| {
            let Some(stored) =
                checkpoint.find(&spec.name, spellings).and_then(|(_, entry)| entry.tensor.as_ref())
            else {
                return; // Missing tensors are reported when the weights are loaded.
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
            // If q, k and v are stored as one matrix, that one counts as v.
            let (v, qk) = layer.attention.qkv.split_last_mut().expect("at least one matrix");
            qk.iter_mut().chain(&mut layer.mlp.up).for_each(|spec| pack(spec, to));
            [v, &mut layer.attention.out, &mut layer.mlp.down]
                .into_iter()
                .for_each(|spec| pack(spec, to.for_sensitive()));
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
