//! The weights of a vision tower.

use super::{
    Checkpoint, Format, LayerWeights, Matrix, ModelTensors, NormWeights, Part, TensorSpec, Values, Vectors,
    VisionTensors, tensors::Found,
};
use crate::{
    architecture::{Architecture, Vision},
    buffers::{Buffers, Content},
    capabilities::Layout,
    error::Result,
};
use std::sync::Arc;

/// A vision tower's weights, in the buffers of its plan.
pub struct VisionWeights {
    /// From a patch's pixels to a hidden state of the tower: `[hidden, values of a patch]`.
    pub patches: Matrix,
    /// The position embeddings, `[positions, hidden]`. The first position is the class token's and has no
    /// pixels: its row also includes the class embedding.
    pub positions: Matrix,
    /// The norm before the first layer.
    pub norm: NormWeights,
    /// The layers that are run, which may be fewer than the checkpoint has.
    pub layers: Vec<LayerWeights>,
    /// The two matrices of the projector, from the tower's hidden size to the language model's.
    pub project: [Matrix; 2],
}

impl VisionWeights {
    /// Like [`super::Weights::load`], for the vision tower of a model that has one.
    pub fn load(
        vision: &Vision,
        wanted: &ModelTensors,
        checkpoint: &Checkpoint,
        layout: &Layout,
        buffers: &mut Buffers,
    ) -> Result<Self> {
        let mut found = wanted.find(checkpoint)?;
        let wanted = wanted.vision.as_ref().expect("a model that sees images");
        let mut vectors = Vectors::new(buffers);
        let norm = vision.tower.embedding.norm.expect("a tower's norm before its layers");
        let norm = vectors.norm(&found, &wanted.norm, &norm);
        let biases =
            wanted.project_bias.as_ref().map(|b| b.each_ref().map(|b| vectors.add(&found.values(b))));
        vectors.declare(buffers, "vectors");
        let mut matrix = |label: &str, spec: &TensorSpec, bias| {
            Matrix::declare(buffers, label, vec![found.rows(spec)], layout, bias)
        };
        let patches = matrix("patches", &wanted.patches, None);
        let [first, second] = &wanted.project;
        let project = [
            matrix("project.0", first, biases.map(|b| b[0])),
            matrix("project.1", second, biases.map(|b| b[1])),
        ];
        let positions = positions(&found, wanted, &vision.tower, layout, buffers);
        let run = &wanted.layers[..vision.layers_run];
        let layers = LayerWeights::load_all(&vision.tower, run, &[], &[], &mut found, layout, buffers);
        Ok(Self { patches, positions, norm, layers, project })
    }
}

/// The position embeddings, `[positions, hidden]`, with the class embedding added to the first row.
fn positions(
    found: &Found,
    wanted: &VisionTensors,
    tower: &Architecture,
    layout: &Layout,
    buffers: &mut Buffers,
) -> Matrix {
    let (rows, columns) = (tower.max_positions, tower.hidden_size);
    let stride = columns.next_multiple_of(layout.align) as usize;
    let mut values = vec![0.0; rows as usize * stride];
    for (to, from) in values.chunks_mut(stride).zip(found.matrix(&wanted.positions).chunks(columns as usize))
    {
        to[..columns as usize].copy_from_slice(from);
    }
    values.iter_mut().zip(found.values(&wanted.class)).for_each(|(to, class)| *to += class);
    let buffer = buffers.declare("positions", Content::Loaded(Arc::new(Values(values))));
    let part = Part { buffer, format: Format::F32, rows: 0..rows, row_bytes: 4 * stride, planes: false };
    Matrix { rows, columns, parts: vec![part], bias: None, low_rank: None }
}
