//! What a request's drawing remembers from one token to the next.

use super::{Adjusted, Draw, Penalties, Sampling};

/// How a sequence's next token is picked.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    pub draw: Draw,
    pub penalties: Penalties,
    /// Whose logits change before, each token once.
    pub adjusted: Vec<Adjusted>,
}

impl Pick {
    pub const GREEDY: Self = Self { draw: Draw::GREEDY, penalties: Penalties::NONE, adjusted: Vec::new() };
}

/// Draws a sequence's tokens: how ([`Sampling`]), and what follows from the tokens that were drawn.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// By how many bits the next token may surprise, where mirostat says so.
    max_surprise: f32,
}

impl Sampler {
    pub fn new(sampling: Sampling) -> Self {
        let max_surprise = sampling.mirostat.map_or(0.0, |mirostat| mirostat.first());
        Self { sampling, max_surprise }
    }

    /// Whether a token must be known before the next can be drawn. Where it need not, steps run ahead of the
    /// host.
    pub fn looks_back(&self) -> bool {
        self.sampling.looks_back()
    }

    /// How the token after these is picked.
    pub fn pick(&self, tokens: &[u32]) -> Pick {
        Pick {
            draw: self.sampling.draw(self.max_surprise),
            penalties: self.sampling.penalties,
            adjusted: self.sampling.adjusted(tokens),
        }
    }

    /// Takes note of the probability of the token that was drawn.
    pub fn observe(&mut self, probability: f32) {
        if let Some(mirostat) = self.sampling.mirostat {
            self.max_surprise = mirostat.next(self.max_surprise, probability);
        }
    }
}
