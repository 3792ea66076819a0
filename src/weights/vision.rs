//! The weights of what sees images.

use super::{
    Checkpoint, Format, LayerWeights, Layout, Matrix, ModelTensors, NormWeights, Part, TensorSpec, Values,
    Vectors, VisionTensors, tensors::Found,
};
use crate::{
    architecture::{Architecture, Vision},
    error::Result,
    plan::{Buffers, Content},
};
use std::sync::Arc;

/// A tower's weights, as its plan names them.
pub struct VisionWeights {
    /// From a patch's pixels to the tower's width.
    pub patches: Matrix,
    /// What is added at each position; to the first, which has no pixels, the class's embedding too.
    pub positions: Matrix,
    pub norm: NormWeights,
    /// Those that are run.
    pub layers: Vec<LayerWeights>,
    /// From the tower's width to the model's, in two steps.
    pub project: [Matrix; 2],
}

impl VisionWeights {
    /// As [`super::Weights::load`], of a model that sees images.
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
        let norm = vectors.norm(&found, &wanted.norm, &vision.tower);
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
        let layers = LayerWeights::load_all(&vision.tower, run, &mut found, layout, buffers);
        Ok(Self { patches, positions, norm, layers, project })
    }
}

/// A row for each position, the class's embedding added to the first.
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
    let part = Part { buffer, format: Format::F32, rows: 0..rows, row_bytes: 4 * stride };
    Matrix { rows, columns, parts: vec![part], bias: None }
}
