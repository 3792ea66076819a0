//! Images: the vision encoder turns them into embeddings, which are written to the rows of a step.

use super::{Engine, Features};
use crate::{
    architecture::Vision,
    backend::{Backend, Device, wait},
    buffers::{BLOCK, Buffers, Rows},
    capabilities::Capabilities,
    decoder,
    error::{Error, Result},
    model::Model,
    plan::{Plans, Ports},
    scheduler::Batch,
    step::{Row, Step},
    weights::VisionWeights,
    workload::Phase,
};

/// The vision encoder, loaded onto a device.
pub(super) struct Encoder {
    backend: Box<dyn Backend>,
    vision: Vision,
    pixels: Rows,
    features: Rows,
}

impl Encoder {
    pub fn prepare(vision: &Vision, plans: Plans, device: Device, progress: &dyn Fn(u64)) -> Result<Self> {
        let Ports { pixels, encoded, .. } = plans.ports;
        let [pixels, features] = [pixels, encoded].map(|rows| rows.expect("a vision encoder's plans"));
        Ok(Self { backend: device.prepare(plans, progress)?, vision: vision.clone(), pixels, features })
    }

    pub fn weights_bytes(&self) -> u64 {
        self.backend.plans().weights_bytes()
    }

    /// Encodes an image, `[side, side, 3]`. Its side is the tower's `image_size` in pixels.
    fn encode(&mut self, image: &[f32]) -> Result<Features> {
        let Vision { image_size, patch_size, keeps_class, .. } = self.vision;
        let (side, patch) = (image_size as usize, patch_size as usize);
        if image.len() != 3 * side * side {
            return Err(Error::request(format!(
                "the image has {} values, but the model looks at {side} by {side} pixels in three colours",
                image.len()
            )));
        }
        // The position of the class token has no pixels.
        let mut pixels = vec![0.0; self.pixels.width as usize];
        for (row, column) in (0..side / patch).flat_map(|y| (0..side / patch).map(move |x| (y, x))) {
            for colour in 0..3 {
                for y in 0..patch {
                    let first = (row * patch + y) * side + column * patch;
                    pixels.extend((first..first + patch).map(|pixel| image[3 * pixel + colour]));
                }
            }
        }
        self.backend.write(self.pixels, &pixels)?;
        let positions = self.vision.tower.max_positions;
        let step = Step {
            rows: (0..positions).map(|position| Row { token: 0, position, sequence: 0 }).collect(),
            bidirectional: true,
            tables: vec![(0..positions.div_ceil(BLOCK)).collect()],
            ..Step::default()
        };
        let passes = 0..self.backend.plans().of(Phase::Prefill).passes.len();
        self.backend.submit_passes(Phase::Prefill, passes, &step)?;
        let mut features = wait(self.backend.read(self.features, positions as usize))?;
        if !keeps_class {
            features.drain(..self.features.width as usize);
        }
        Ok(Features::new(features, self.features.width as usize))
    }
}

/// The plans of a model's vision encoder for a device, if it has one. The weights are checked, but not read.
pub fn vision_plans(model: &Model, can: &Capabilities) -> Result<Option<Plans>> {
    let Some(vision) = &model.architecture.vision else { return Ok(None) };
    let mut buffers = Buffers::default();
    let weights = VisionWeights::load(vision, &model.tensors, &model.checkpoint, &can.layout, &mut buffers)?;
    decoder::vision(vision, &weights, buffers, can, model.architecture.hidden_size).map(Some)
}

impl Engine {
    /// The embeddings of an image, `[tokens, hidden]`, from its pixels, `[side, side, 3]`, as the model's
    /// preprocessor makes them.
    ///
    /// # Errors
    /// Of the kind Request if the model takes no images or the number of values is wrong.
    pub fn encode_image(&mut self, image: &[f32]) -> Result<Features> {
        let blind = || Error::request("the model sees no images: give it none, or take one that does");
        self.vision.as_mut().ok_or_else(blind)?.encode(image)
    }

    /// Writes the embeddings of a batch's image tokens to their rows.
    pub(super) fn write_images(&mut self, batch: &Batch) -> Result<()> {
        let Some(rows) = self.backend.plans().ports.features.filter(|_| !batch.images.is_empty()) else {
            return Ok(());
        };
        let width = rows.width as usize;
        let mut values = vec![0.0; batch.step.rows.len() * width];
        for (row, features, token) in &batch.images {
            values[row * width..][..width].copy_from_slice(features.token(*token));
        }
        self.backend.write(rows, &values)
    }
}
