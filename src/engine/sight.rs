//! Images: what a tower makes of them, and where in a prompt that stands.

use super::Engine;
use crate::{
    architecture::Vision,
    backend::{Backend, Device},
    capabilities::Capabilities,
    decoder::{TowerPlan, tower},
    error::{Error, Result},
    model::Model,
    plan::{Buffers, Rows, Shape},
    step::{BLOCK, FEATURE, Row, Step},
    weights::VisionWeights,
};
use std::sync::Arc;

/// What stands for an image: for each of its tokens as many values as the model is wide.
#[derive(Clone, Debug, PartialEq)]
pub struct Features(Arc<Vec<f32>>);

impl Features {
    /// One token's after the other's.
    pub fn values(&self) -> &[f32] {
        &self.0
    }
}

/// A prompt: tokens, and images in the place of some.
#[derive(Clone, Copy, Debug)]
pub struct Prompt<'a> {
    pub tokens: &'a [u32],
    pub images: &'a [Placed],
}

/// An image in a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// The first token in whose place it stands.
    pub at: usize,
    pub features: Features,
}

impl<'a> From<&'a [u32]> for Prompt<'a> {
    fn from(tokens: &'a [u32]) -> Self {
        Self { tokens, images: &[] }
    }
}
impl<'a> From<&'a Vec<u32>> for Prompt<'a> {
    fn from(tokens: &'a Vec<u32>) -> Self {
        tokens.as_slice().into()
    }
}
impl<'a, const N: usize> From<&'a [u32; N]> for Prompt<'a> {
    fn from(tokens: &'a [u32; N]) -> Self {
        tokens.as_slice().into()
    }
}

impl Prompt<'_> {
    /// How many of the first tokens, and of the images in their place, are the same in both.
    pub(super) fn common(&self, other: &Prompt) -> usize {
        let tokens = self.tokens.iter().zip(other.tokens).take_while(|(a, b)| a == b).count();
        let images = self.images.iter().zip(other.images).take_while(|(a, b)| a == b).count();
        let next = [self.images, other.images].into_iter().filter_map(|all| all.get(images));
        next.map(|image| image.at).fold(tokens, usize::min)
    }
}

/// The tower, made ready on a device.
pub(super) struct Tower {
    backend: Box<dyn Backend>,
    vision: Vision,
    pixels: Rows,
    features: Rows,
}

impl Tower {
    pub fn prepare(vision: &Vision, plan: TowerPlan, device: Device, progress: &dyn Fn(u64)) -> Result<Self> {
        let TowerPlan { plans, pixels } = plan;
        let features = plans.logits;
        Ok(Self { backend: device.prepare(plans, progress)?, vision: vision.clone(), pixels, features })
    }

    pub fn weights_bytes(&self) -> u64 {
        self.backend.plans().weights_bytes()
    }

    /// What it makes of an image: square, of the side that the tower has, three colours a pixel.
    fn see(&mut self, image: &[f32]) -> Result<Features> {
        let Vision { image_size, patch_size, keeps_class, .. } = self.vision;
        let (side, patch) = (image_size as usize, patch_size as usize);
        if image.len() != 3 * side * side {
            return Err(Error::request(format!(
                "the image has {} values, but the model looks at {side} by {side} pixels in three colours",
                image.len()
            )));
        }
        // The class's position has no pixels.
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
            whole: true,
            tables: vec![(0..positions.div_ceil(BLOCK)).collect()],
            ..Step::default()
        };
        self.backend.run(Shape::Prefill, &step)?;
        let mut features = self.backend.read(self.features, positions as usize)?;
        if !keeps_class {
            features.drain(..self.features.width as usize);
        }
        Ok(Features(Arc::new(features)))
    }
}

/// The plan of what sees images, in a model that does, for a device; its weights checked but not yet read.
pub fn tower_plan(model: &Model, can: &Capabilities) -> Result<Option<TowerPlan>> {
    let Some(vision) = &model.architecture.vision else { return Ok(None) };
    let mut buffers = Buffers::default();
    let weights = VisionWeights::load(vision, &model.tensors, &model.checkpoint, &can.layout, &mut buffers)?;
    tower(vision, &weights, buffers, can, model.architecture.hidden_size).map(Some)
}

impl Engine {
    /// What stands for an image in a prompt: its pixels row by row, three colours each, as the model's own preprocessing
    /// makes them.
    ///
    /// # Errors
    /// Of the kind Request where the model sees no images.
    pub fn see(&mut self, image: &[f32]) -> Result<Features> {
        let blind = || Error::request("the model sees no images: give it none, or take one that does");
        self.tower.as_mut().ok_or_else(blind)?.see(image)
    }

    /// Puts a step's rows that stand for parts of images in the place of their tokens.
    pub(super) fn show(&mut self, images: &[Placed], step: &mut Step) -> Result<()> {
        let Some(rows) = self.backend.plans().features else { return Ok(()) };
        let width = rows.width as usize;
        let part = |row: &Row| {
            let position = row.position as usize;
            images
                .iter()
                .find_map(|image| image.features.0.chunks(width).nth(position.checked_sub(image.at)?))
        };
        // Most steps are of words alone.
        if step.rows.iter().all(|row| part(row).is_none()) {
            return Ok(());
        }
        let mut values = vec![0.0; step.rows.len() * width];
        for (row, to) in step.rows.iter_mut().zip(values.chunks_mut(width)) {
            if let Some(part) = part(row) {
                row.token = FEATURE;
                to.copy_from_slice(part);
            }
        }
        self.backend.write(rows, &values)
    }
}
