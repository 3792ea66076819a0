//! Shows what happens in a model while it reads a text: what each layer would predict, and where each
//! attention head looks.

use super::{Engine, Goal};
use crate::{
    backend::wait,
    buffers::Rows,
    decoder::MAX_INSIGHT_TOKENS,
    error::{Error, Result},
    plan::{Mark, Plan},
    sampling::{highest, log_total},
    workload::Phase,
};
use std::ops::{ControlFlow, Range};

/// What [`Engine::insight`] collects.
#[derive(Clone, Debug, PartialEq)]
pub struct Insight {
    /// The logit lens (nostalgebraist 2020), `[layers + 1][tokens][candidates]`: the most probable next
    /// tokens if the final norm and the output head followed right after the embedding or right after each
    /// layer. The last entry is what the model predicts.
    pub lens: Vec<Vec<Vec<Candidate>>>,
    /// The attention weights, `[layers][heads][tokens][positions]`: how much each token attends to each
    /// position up to its own. The weights of a token add up to 1.
    pub attention: Vec<Vec<Vec<Vec<f32>>>>,
}

/// A possible next token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    pub id: u32,
    pub probability: f32,
}

impl Candidate {
    /// The `count` most probable tokens, the most probable first.
    fn best(logits: &[f32], count: usize) -> Vec<Self> {
        let total = log_total(logits);
        let probability = |id: u32| (f64::from(logits[id as usize]) - total).exp() as f32;
        highest(logits, count).into_iter().map(|id| Self { id, probability: probability(id) }).collect()
    }
}

/// The passes of a prefill plan in three parts: those before the layers, those of each layer, and those after
/// the layers up to the logits.
fn parts(plan: &Plan) -> (Range<usize>, Vec<Range<usize>>, Range<usize>) {
    let of = |layer: u32| {
        let is_of = |pass: &crate::plan::Pass| pass.layer == Some(layer);
        let start = plan.passes.iter().position(is_of)?;
        Some(start..plan.passes.iter().rposition(is_of)? + 1)
    };
    let layers: Vec<_> = (0..).map_while(of).collect();
    let (start, end) = (layers[0].start, layers[layers.len() - 1].end);
    let head = plan.marked(Mark::Head).expect("a head");
    (0..start, layers, end..head + 1)
}

impl Engine {
    /// Runs the model on a text and collects the attention weights of all layers and the `candidates` most
    /// probable tokens of each prediction. `progress` is called after the embedding and after each layer,
    /// with the number of these that are done and their total; if it breaks, the result is `None`. The engine
    /// must be loaded with [`super::EngineOptions::insight`] and have no other sequences.
    ///
    /// # Errors
    /// Of the kind Request if the text is empty, contains unknown ids, or has more tokens than
    /// [`MAX_INSIGHT_TOKENS`] or the context, or if the engine is busy or not loaded with that option.
    pub fn insight(
        &mut self,
        tokens: &[u32],
        candidates: usize,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Insight>> {
        if tokens.len() > MAX_INSIGHT_TOKENS as usize {
            return Err(Error::request(format!(
                "the prompt has {} tokens, but at most {MAX_INSIGHT_TOKENS} can be looked into: shorten it",
                tokens.len()
            )));
        }
        let not_for_it = "the engine was not loaded for looking inside: set EngineOptions::insight";
        let weights = self.plans().ports.attention_weights.ok_or_else(|| Error::request(not_for_it))?;
        if !self.is_idle() {
            return Err(Error::request("the engine is at work: look inside when its sequences have ended"));
        }
        while !self.in_flight.is_empty() {
            wait(self.advance())?;
        }
        let sequence = self.add(tokens, Goal::Predict { from: 0 })?;
        let seen = self.look(tokens.len(), weights, candidates, progress);
        self.cancel(sequence);
        if !matches!(seen, Ok(Some(_))) {
            // The cache has the prompt's blocks, but not in every layer.
            self.scheduler.clear();
        }
        let Some(insight) = seen? else { return Ok(None) };
        let is_number = |of: &Candidate| of.probability.is_finite();
        match insight.lens.iter().flatten().flatten().all(is_number) {
            true => Ok(Some(insight)),
            false => Err(self.not_numbers()),
        }
    }

    /// Runs the one waiting sequence layer by layer and reads the results back.
    fn look(
        &mut self,
        tokens: usize,
        weights: Rows,
        candidates: usize,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Option<Insight>> {
        let (before, layers, after) = parts(self.plans().of(Phase::Prefill));
        let (positions, logits) = (self.context().min(MAX_INSIGHT_TOKENS) as usize, self.plans().logits());
        let n_heads = weights.width as usize / positions;
        let mut insight = Insight {
            lens: vec![Vec::new(); layers.len() + 1],
            attention: vec![vec![Vec::new(); n_heads]; layers.len()],
        };
        let steps = tokens.div_ceil(self.plans().sizes.outputs as usize);
        let mut done = 0;
        while let Some(batch) = self.scheduler.schedule() {
            let rows = batch.step.rows.len();
            for (depth, passes) in std::iter::once(&before).chain(&layers).enumerate() {
                self.backend.submit_passes(Phase::Prefill, passes.clone(), &batch.step)?;
                if let Some(layer) = depth.checked_sub(1) {
                    let weights = wait(self.backend.read(weights, rows))?;
                    for (row, weights) in batch.step.rows.iter().zip(weights.chunks(weights.len() / rows)) {
                        let heads = insight.attention[layer].iter_mut().zip(weights.chunks(positions));
                        heads.for_each(|(head, weights)| {
                            head.push(weights[..=row.position as usize].to_vec());
                        });
                    }
                }
                self.backend.submit_passes(Phase::Prefill, after.clone(), &batch.step)?;
                let logits = wait(self.backend.read(logits, rows))?;
                let best =
                    logits.chunks(self.vocab_size as usize).map(|row| Candidate::best(row, candidates));
                insight.lens[depth].extend(best);
                done += 1;
                if progress(done, steps * (layers.len() + 1)).is_break() {
                    return Ok(None);
                }
            }
        }
        Ok(Some(insight))
    }
}
