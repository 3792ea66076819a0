//! Samplers: the sampling settings of a sequence, and what they remember from one token to the next.

use super::{Adjusted, Draw, Penalties, Sampling};

/// How to sample a sequence's next token.
#[derive(Clone, Debug, PartialEq)]
pub struct Pick {
    pub draw: Draw,
    pub penalties: Penalties,
    /// The tokens whose logits change before sampling. Each occurs once.
    pub adjusted: Vec<Adjusted>,
}

impl Pick {
    pub const GREEDY: Self = Self { draw: Draw::GREEDY, penalties: Penalties::NONE, adjusted: Vec::new() };
}

/// The sampling settings of a sequence, and what has to be known of the tokens drawn so far.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    /// The maximal surprise of the next token in bits, if mirostat is used.
    max_surprise: f32,
}

impl Sampler {
    pub fn new(sampling: Sampling) -> Self {
        let max_surprise = sampling.mirostat.map_or(0.0, |mirostat| mirostat.first());
        Self { sampling, max_surprise }
    }

    /// Whether the host must know a token before the next one can be sampled. If not, steps run ahead of the
    /// host.
    pub fn looks_back(&self) -> bool {
        self.sampling.looks_back()
    }

    /// How to sample the token after `tokens`. `is_first` says whether it is the first one drawn.
    pub fn pick(&self, tokens: &[u32], is_first: bool) -> Pick {
        Pick {
            draw: self.sampling.draw(self.max_surprise),
            penalties: self.sampling.penalties,
            adjusted: self.sampling.adjusted(tokens, is_first),
        }
    }

    /// Prepares for positions that were there before: what is drawn for them is drawn anew.
    pub fn restart(&mut self) {
        self.sampling.seed = self.sampling.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    }

    /// Records the probability of the token that was drawn.
    pub fn observe(&mut self, probability: f32) {
        if let Some(mirostat) = self.sampling.mirostat {
            self.max_surprise = mirostat.next(self.max_surprise, probability);
        }
    }
}
