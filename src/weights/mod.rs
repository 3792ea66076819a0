//! Weights: from a checkpoint's tensors to the buffers that a plan reads.
//!
//! [`Checkpoint`] maps the files (safetensors, or a [`Gguf`]). A model family describes with [`ModelTensors`]
//! which tensors make up its matrices and vectors, and [`ModelTensors::quantize`] sets the formats that
//! matrices are requantised to. [`Weights::load`] checks all tensors at once and declares the plan's buffers;
//! each buffer has [`Contents`] that fill it row by row. Nothing is copied before a backend asks for it.

mod adapter;
mod format;
mod gguf;
mod pack;
mod planes;
mod quantize;
mod random;
mod rows;
mod safetensors;
mod tensors;
pub(crate) mod unpack;
mod vision;

pub use adapter::{Adapter, LowRank};
pub use format::Format;
pub use gguf::{Gguf, Made, Split, Value, Writer};
pub use quantize::Quantized;
pub use random::Random;
pub use rows::{Order, StoredRows};
pub use safetensors::{Bytes, Checkpoint, Entry, Tensor};
pub use tensors::{
    AttentionTensors, LayerTensors, MlpTensors, ModelTensors, NormTensors, Spellings, TensorSpec,
    VisionTensors,
};

use crate::{
    architecture::{Architecture, Layer, Norm, NormKind, Norms, Span},
    buffers::{ALIGN, Buffer, Buffers, Content, Contents},
    capabilities::Layout,
    error::Result,
    memory::Memory,
};
use std::{ops::Range, sync::Arc};
use tensors::Found;
pub use vision::VisionWeights;

/// Consecutive rows of a matrix, in one buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub buffer: Buffer,
    pub format: Format,
    /// Which rows of the matrix the part holds.
    pub rows: Range<u32>,
    /// Bytes from one row to the next.
    pub row_bytes: usize,
    /// Whether the rows are laid out in planes (planes.rs).
    pub planes: bool,
}

/// A weight matrix, `[rows, columns]`: a row per output. Its rows are divided into parts.
#[derive(Clone, Debug)]
pub struct Matrix {
    pub rows: u32,
    pub columns: u32,
    pub parts: Vec<Part>,
    pub bias: Option<Vector>,
    /// What adapters change of it.
    pub low_rank: Option<Box<LowRank>>,
}

impl Matrix {
    /// Declares the buffers of a matrix whose rows are those of `sources`, one after the other.
    pub fn declare(
        buffers: &mut Buffers,
        label: &str,
        sources: Vec<StoredRows>,
        layout: &Layout,
        bias: Option<Vector>,
    ) -> Self {
        let columns = sources[0].columns();
        let rows = sources.iter().map(StoredRows::len).sum();
        let planes = |s: &StoredRows| layout.planes && s.format().is_blocks();
        let row_bytes = |s: &StoredRows| {
            if planes(s) {
                return planes::row_bytes(s.format(), columns as usize);
            }
            let bytes = s.format().row_bytes(columns.next_multiple_of(layout.align) as usize);
            // Shaders read words of four bytes.
            if layout.align > 1 { bytes.next_multiple_of(4) } else { bytes }
        };
        // Join consecutive sources of one format while they fit into one binding.
        let mut runs: Vec<StoredRows> = Vec::new();
        for source in sources {
            match runs.last_mut() {
                Some(run)
                    if layout.join
                        && run.format() == source.format()
                        && u64::from(run.len() + source.len()) * row_bytes(run) as u64
                            <= layout.max_bytes =>
                {
                    run.append(source);
                }
                _ => runs.push(source),
            }
        }
        let (mut parts, mut first) = (Vec::new(), 0);
        for run in runs {
            let (row_bytes, planes) = (row_bytes(&run), planes(&run));
            let max_rows = (layout.max_bytes / row_bytes as u64).clamp(1, u64::from(u32::MAX)) as u32;
            // Make every part but the last a multiple of 64 rows, the rows in a tile of the matmul.
            let max_rows = if max_rows > 64 { max_rows / 64 * 64 } else { max_rows };
            for start in (0..run.len()).step_by(max_rows as usize) {
                let taken = start..run.len().min(start.saturating_add(max_rows));
                let format = run.format();
                let piece = run.piece(taken.clone(), row_bytes).in_planes(planes);
                let buffer = buffers.declare(label, Content::Loaded(Arc::new(piece)));
                let rows = first + taken.start..first + taken.end;
                parts.push(Part { buffer, format, rows, row_bytes, planes });
            }
            first += run.len();
        }
        Self { rows, columns, parts, bias, low_rank: None }
    }

    /// Groups of eight values in a padded row. Shaders read weights in groups of eight.
    pub fn columns8(&self) -> u32 {
        self.columns.div_ceil(8)
    }

    /// Dequantises a row into `values` (`[columns]`).
    pub fn unpack_row(&self, memory: &Memory, row: u32, values: &mut [f32]) {
        let part = self.parts.iter().find(|p| p.rows.contains(&row)).expect("a row of the matrix");
        let at = (row - part.rows.start) as usize * part.row_bytes;
        let row = &memory.bytes(part.buffer)[at..][..part.row_bytes];
        match part.planes {
            true => planes::unpack(part.format, row, self.columns as usize, values),
            false => part.format.unpack(row, values),
        }
    }

    /// Bytes of all rows, padding included.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|p| p.rows.len() as u64 * p.row_bytes as u64).sum()
    }

    /// The names of the parts' formats, joined by "+"; equal neighbours are named once.
    pub fn formats(&self) -> String {
        let mut names: Vec<_> = self.parts.iter().map(|p| p.format.name()).collect();
        names.dedup();
        names.join("+")
    }
}

/// `len` consecutive f32 in a buffer of small vectors, from index `at` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vector {
    pub buffer: Buffer,
    pub at: u32,
    pub len: u32,
}

impl Vector {
    /// Its values.
    pub fn of(self, memory: &Memory) -> &[f32] {
        &memory.loaded(self.buffer)[self.at as usize..][..self.len as usize]
    }
}

/// A norm: its kind, its weights and its epsilon.
#[derive(Clone, Copy, Debug)]
pub struct NormWeights {
    pub weight: Vector,
    pub bias: Option<Vector>,
    pub kind: NormKind,
    pub epsilon: f32,
}

/// A layer's small vectors (norm weights, biases), in one buffer. They have the same offsets in every layer,
/// so that layers share shader programs.
struct Vectors {
    buffer: Buffer,
    values: Vec<f32>,
}

impl Vectors {
    /// Starts the vectors of the buffer that will be declared next.
    fn new(buffers: &Buffers) -> Self {
        Self { buffer: buffers.next(), values: Vec::new() }
    }
    fn add(&mut self, values: &[f32]) -> Vector {
        let at = self.values.len() as u32;
        self.values.extend(values);
        // Align each vector as activations are: shaders read both as vec4s.
        self.values.resize(self.values.len().next_multiple_of(ALIGN as usize), 0.0);
        Vector { buffer: self.buffer, at, len: values.len() as u32 }
    }
    /// Adds the values of some tensors, one after the other, as one vector; None without tensors.
    fn join(&mut self, found: &Found, specs: &[TensorSpec]) -> Option<Vector> {
        let values: Vec<f32> = specs.iter().flat_map(|s| found.values(s)).collect();
        (!values.is_empty()).then(|| self.add(&values))
    }
    fn norm(&mut self, found: &Found, specs: &NormTensors, norm: &Norm) -> NormWeights {
        NormWeights {
            weight: self.add(&found.values(&specs.weight)),
            bias: self.join(found, specs.bias.as_slice()),
            kind: norm.kind,
            epsilon: norm.epsilon,
        }
    }
    fn declare(self, buffers: &mut Buffers, label: impl Into<String>) {
        let declared = buffers.declare(label, Content::Loaded(Arc::new(Values(self.values))));
        assert_eq!(declared, self.buffer, "vectors are declared before any other buffer");
    }
}

/// Contents that are already f32 in memory, as a single row.
pub struct Values(pub Vec<f32>);

impl AsRef<[u8]> for Values {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Contents for Values {
    fn rows(&self) -> usize {
        1
    }
    fn row_bytes(&self) -> usize {
        self.0.len() * 4
    }
    fn fill(&self, _: usize, out: &mut [u8]) {
        out.copy_from_slice(bytemuck::cast_slice(&self.0));
    }
    fn mapped(&self) -> Option<&[u8]> {
        Some(bytemuck::cast_slice(&self.0))
    }
}

/// A model's weights, in the buffers of its plans.
pub struct Weights {
    /// The token embedding, `[vocab, hidden]`.
    pub tokens: Matrix,
    /// Learned position embeddings, `[positions, hidden]`.
    pub positions: Option<Matrix>,
    pub layers: Vec<LayerWeights>,
    pub final_norm: Option<NormWeights>,
    /// The output matrix, `[vocab, hidden]`; the token embedding if they are tied.
    pub head: Matrix,
}

/// One layer's weights.
pub struct LayerWeights {
    pub attention: AttentionWeights,
    pub mlp: MlpWeights,
}

/// The weights of a layer's attention.
pub struct AttentionWeights {
    pub norms: Norms<NormWeights>,
    /// The scale of attention scores, and the attention window or 0.
    pub scalars: Vector,
    /// `[(n_heads + 2 n_kv_heads) · head_dim, hidden]`
    pub qkv: Matrix,
    /// The norms of each head of q and of k, in models that have them.
    pub qk_norm: Option<[NormWeights; 2]>,
    /// The output projection, `[hidden, n_heads · head_dim]`.
    pub out: Matrix,
}

/// The weights of a layer's MLP.
pub struct MlpWeights {
    pub norms: Norms<NormWeights>,
    /// The first matrix, `[intermediate, hidden]`; in a gated MLP `[2 intermediate, hidden]`: gate, then up.
    pub up: Matrix,
    /// The last matrix, `[hidden, intermediate]`.
    pub down: Matrix,
}

impl LayerWeights {
    /// Its matrices.
    pub fn matrices(&self) -> impl Iterator<Item = &Matrix> {
        [&self.attention.qkv, &self.attention.out, &self.mlp.up, &self.mlp.down].into_iter()
    }

    /// Loads the layers in `wanted`, the first ones of the architecture.
    fn load_all(
        architecture: &Architecture,
        wanted: &[LayerTensors],
        adapters: &[Adapter],
        spellings: Spellings,
        found: &mut Found,
        layout: &Layout,
        buffers: &mut Buffers,
    ) -> Vec<Self> {
        let mut load = |number: usize, layer: &LayerTensors| {
            let Layer { attention, mlp, .. } = &architecture.layers[number];
            let LayerTensors { attention: of_attention, mlp: of_mlp } = layer;
            let mut vectors = Vectors::new(buffers);
            let window = match attention.span {
                Span::Full => 0.0,
                Span::Sliding(positions) | Span::Chunked(positions) => positions as f32,
            };
            let scalars = vectors.add(&[attention.scale, window]);
            let mut norm = |specs: &NormTensors, norm: &Norm| vectors.norm(found, specs, norm);
            let around_attention = of_attention.norms.zip(&attention.norms, &mut norm);
            let around_mlp = of_mlp.norms.zip(&mlp.norms, &mut norm);
            let qkv_bias = vectors.join(found, &of_attention.qkv_bias);
            let out_bias = vectors.join(found, of_attention.out_bias.as_slice());
            let up_bias = vectors.join(found, &of_mlp.up_bias);
            let down_bias = vectors.join(found, of_mlp.down_bias.as_slice());
            let qk_norm = attention.qk_norm.as_ref().zip(of_attention.qk_norm.as_ref()).map(|(by, both)| {
                both.each_ref().map(|weight| {
                    let specs = NormTensors { weight: weight.clone(), bias: None };
                    vectors.norm(found, &specs, &by.norm)
                })
            });
            vectors.declare(buffers, format!("{number}.vectors"));
            let mut matrix = |name: &str, specs: &[TensorSpec], bias| {
                let sources = specs.iter().map(|s| found.rows(s)).collect();
                let label = format!("{number}.{name}");
                let matrix = Matrix::declare(buffers, &label, sources, layout, bias);
                let low_rank = LowRank::load(adapters, specs, spellings, buffers, &label, layout);
                Matrix { low_rank: low_rank.map(Box::new), ..matrix }
            };
            let attention = AttentionWeights {
                norms: around_attention,
                scalars,
                qk_norm,
                qkv: matrix("qkv", &of_attention.qkv, qkv_bias),
                out: matrix("out", std::slice::from_ref(&of_attention.out), out_bias),
            };
            let mlp = MlpWeights {
                norms: around_mlp,
                up: matrix("up", &of_mlp.up, up_bias),
                down: matrix("down", std::slice::from_ref(&of_mlp.down), down_bias),
            };
            Self { attention, mlp }
        };
        wanted.iter().enumerate().map(|(number, layer)| load(number, layer)).collect()
    }
}

impl Weights {
    /// Checks every tensor that the model needs, and declares the buffers that hold them.
    ///
    /// # Errors
    /// Of the kind Model: lists all tensors that are missing, have the wrong shape, or are in an unsupported
    /// format.
    pub fn load(
        architecture: &Architecture,
        wanted: &ModelTensors,
        checkpoint: &Checkpoint,
        adapters: &[Adapter],
        layout: &Layout,
        buffers: &mut Buffers,
    ) -> Result<Self> {
        let mut found = wanted.find(checkpoint)?;
        let tokens = Matrix::declare(buffers, "tokens", vec![found.rows(&wanted.tokens)], layout, None);
        let positions = wanted
            .positions
            .as_ref()
            .map(|p| Matrix::declare(buffers, "positions", vec![found.rows(p)], layout, None));
        let spellings = wanted.spellings;
        let layers = LayerWeights::load_all(
            architecture,
            &wanted.layers,
            adapters,
            spellings,
            &mut found,
            layout,
            buffers,
        );
        let final_norm = wanted.final_norm.as_ref().zip(architecture.final_norm).map(|(specs, norm)| {
            let mut vectors = Vectors::new(buffers);
            let weights = vectors.norm(&found, specs, &norm);
            vectors.declare(buffers, "final_norm");
            weights
        });
        let head = match &wanted.head {
            Some(head) => Matrix::declare(buffers, "head", vec![found.rows(head)], layout, None),
            None => tokens.clone(),
        };
        Ok(Self { tokens, positions, layers, final_norm, head })
    }
}
