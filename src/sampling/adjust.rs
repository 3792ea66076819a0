//! Logits that change before anything is drawn: biases, then penalties on tokens that were there before, then DRY.

use super::NO_CUT;
use std::collections::{BTreeMap, BTreeSet};

/// What makes tokens less likely that were there before, prompt included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Penalties {
    /// Divides logits above zero, and multiplies those below (Keskar et al. 2019, "CTRL"); 1: none.
    pub repetition: f32,
    /// Taken off for each time that the token was there, and once if it was (OpenAI's API); 0: none.
    pub frequency: f32,
    pub presence: f32,
    /// Of how many of the last tokens; 0: of all.
    pub last: u32,
}

/// Don't repeat yourself (p-e-w, text-generation-webui #5677): a token that would go on with a repetition of what was there
/// before loses multiplier · base^(length − allowed), `length` being how many tokens that repetition has so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// 0: none.
    pub multiplier: f32,
    pub base: f32,
    /// Repetitions that are shorter cost nothing.
    pub allowed: u32,
    /// Of how many of the last tokens; 0: of all.
    pub last: u32,
    /// Tokens over which no repetition goes on.
    pub breakers: BTreeSet<u32>,
}

/// A token whose logit changes, and by what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjusted {
    pub token: u32,
    /// How often it was there, for penalties.
    pub count: u32,
    /// Added before those.
    pub bias: f32,
    /// Taken off after them.
    pub dry: f32,
}

/// The most tokens that can be biased, which bounds what a step has to say.
pub const MOST_BIASES: usize = 1024;

/// Repetitions count no further, as in DRY's first form: powers beyond say nothing more.
const LONGEST: usize = 50;

impl Penalties {
    pub const NONE: Self = Self { repetition: 1.0, frequency: 0.0, presence: 0.0, last: 0 };

    /// Whether they change anything.
    pub fn are_some(&self) -> bool {
        (self.repetition, self.frequency, self.presence) != (1.0, 0.0, 0.0)
    }

    /// What becomes of a logit.
    pub fn apply(&self, logit: f32, to: &Adjusted) -> f32 {
        let mut logit = logit + to.bias;
        if to.count > 0 {
            logit = if logit > 0.0 { logit / self.repetition } else { logit * self.repetition };
            logit -= self.frequency * to.count as f32 + self.presence;
        }
        logit - to.dry
    }
}

impl Dry {
    pub const NONE: Self =
        Self { multiplier: 0.0, base: 1.75, allowed: 2, last: 0, breakers: BTreeSet::new() };

    /// Whether it changes anything.
    pub fn is_some(&self) -> bool {
        self.multiplier > 0.0
    }

    /// For each token that would go on with a repetition, how long that is.
    fn lengths(&self, tokens: &[u32]) -> BTreeMap<u32, usize> {
        let breaks = |token: &u32| self.breakers.contains(token);
        let mut lengths = BTreeMap::new();
        let tokens = last(tokens, self.last);
        let Some(newest) = tokens.last().filter(|newest| !breaks(newest)) else { return lengths };
        let begins = |end: &usize| tokens[end - 1] == *newest && !breaks(&tokens[*end]);
        for end in (1..tokens.len()).filter(begins) {
            let next = tokens[end];
            let (before, now) = (tokens[..end].iter().rev(), tokens.iter().rev());
            let same = before.zip(now).take(LONGEST).take_while(|(a, b)| a == b && !breaks(a)).count();
            let longest = lengths.entry(next).or_insert(0);
            *longest = same.max(*longest);
        }
        lengths
    }

    fn penalty(&self, length: usize) -> f32 {
        match length.checked_sub(self.allowed as usize) {
            Some(beyond) => (self.multiplier * self.base.powi(beyond as i32)).min(-NO_CUT),
            None => 0.0,
        }
    }
}

fn last(tokens: &[u32], count: u32) -> &[u32] {
    let count = if count == 0 { tokens.len() } else { tokens.len().min(count as usize) };
    &tokens[tokens.len() - count..]
}

/// The tokens whose logits change after these, each once, by id.
pub(super) fn adjusted(
    biases: &[(u32, f32)],
    penalties: &Penalties,
    dry: &Dry,
    tokens: &[u32],
) -> Vec<Adjusted> {
    let mut all = BTreeMap::new();
    let mut change = |token: u32, by: &dyn Fn(&mut Adjusted)| {
        by(all.entry(token).or_insert(Adjusted { token, count: 0, bias: 0.0, dry: 0.0 }));
    };
    for (token, bias) in biases {
        // A ban must leave a number.
        change(*token, &|to| to.bias = (to.bias + bias).clamp(NO_CUT, -NO_CUT));
    }
    if penalties.are_some() {
        last(tokens, penalties.last).iter().for_each(|token| change(*token, &|to| to.count += 1));
    }
    if dry.is_some() {
        let costs = dry.lengths(tokens).into_iter().map(|(token, length)| (token, dry.penalty(length)));
        costs.filter(|(_, cost)| *cost > 0.0).for_each(|(token, cost)| change(token, &|to| to.dry = cost));
    }
    all.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Sampling;

    /// Of the last four, a token twice and two others once; what is not among them is left alone.
    #[test]
    fn penalties_are_for_what_was_there() {
        let penalties = Penalties { repetition: 2.0, frequency: 0.25, presence: 0.5, last: 4 };
        let of = |penalties, tokens: &[u32]| Sampling { penalties, ..Sampling::GREEDY }.adjusted(tokens);
        let found = of(penalties, &[9, 9, 9, 5, 3, 5, 8]);
        let counts: Vec<_> = found.iter().map(|to| (to.token, to.count)).collect();
        assert_eq!(counts, [(3, 1), (5, 2), (8, 1)]);
        assert_eq!(penalties.apply(3.0, &found[1]), 3.0 / 2.0 - 2.0 * 0.25 - 0.5);
        assert_eq!(penalties.apply(-3.0, &found[0]), -3.0 * 2.0 - 0.25 - 0.5);
        assert_eq!(of(Penalties { last: 0, ..penalties }, &[9, 9, 5]).len(), 2);
        assert!(of(Penalties { last: 4, ..Penalties::NONE }, &[9, 9, 5]).is_empty());
    }

    /// A bias comes first, and is added up; a banned token keeps a number, below all others.
    #[test]
    fn biases_come_before_penalties() {
        let biases = vec![(4, 1.5), (7, f32::NEG_INFINITY), (4, 1.0), (9, f32::INFINITY)];
        let penalties = Penalties { repetition: 2.0, ..Penalties::NONE };
        let sampling = Sampling { biases, penalties, ..Sampling::GREEDY };
        let found = sampling.adjusted(&[4, 5]);
        let after =
            |logit: f32| found.iter().map(|to| (to.token, penalties.apply(logit, to))).collect::<Vec<_>>();
        assert_eq!(after(-1.5), [(4, 0.5), (5, -3.0), (7, NO_CUT), (9, -NO_CUT)]);
    }

    /// What llama.cpp's own test expects (tests/test-sampling.cpp): which tokens a repetition of which length costs.
    #[test]
    fn dry_is_for_what_would_go_on_with_a_repetition() {
        let dry = Dry { multiplier: 1.0, base: 1.1, ..Dry::NONE };
        let cost = |dry: &Dry, tokens: &[u32]| -> Vec<(u32, f32)> {
            let sampling = Sampling { dry: dry.clone(), ..Sampling::GREEDY };
            let found = sampling.adjusted(tokens);
            found.iter().filter(|to| to.dry > 0.0).map(|to| (to.token, to.dry)).collect()
        };
        assert_eq!(cost(&dry, &[0, 1]), []);
        // 0 1 was there before 2, and 1 before; the end repeats two tokens.
        assert_eq!(cost(&dry, &[0, 1, 2, 0, 1]), [(2, 1.0)]);
        assert_eq!(cost(&dry, &[0, 1, 3, 4, 0, 1]), [(3, 1.0)]);
        assert_eq!(cost(&dry, &[0, 1, 2, 3, 4, 0, 1]), [(2, 1.0)]);
        assert_eq!(cost(&Dry { last: 4, ..dry.clone() }, &[0, 1, 2, 3, 0, 1]), []);
        // A longer one costs a power more; the longest counts.
        assert_eq!(cost(&dry, &[5, 0, 1, 2, 8, 0, 1, 2, 9, 5, 0, 1]), [(2, 1.1)]);
        assert_eq!(cost(&dry, &[5, 0, 1, 2, 5, 0, 1, 3, 0, 1]), [(2, 1.0), (3, 1.0)]);
        // It goes not over a breaker, nor on with one.
        assert_eq!(cost(&Dry { breakers: [0].into(), ..dry.clone() }, &[5, 0, 1, 2, 5, 0, 1]), []);
        assert_eq!(cost(&Dry { breakers: [2].into(), ..dry.clone() }, &[5, 0, 1, 2, 5, 0, 1]), []);
        // Nor is a long one infinite.
        let long = Dry { base: 1e30, ..dry };
        assert_eq!(cost(&long, &[7; 80]), [(7, -NO_CUT)]);
    }
}
