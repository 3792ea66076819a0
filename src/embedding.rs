//! Embeddings of texts: the hidden states of a text's tokens, pooled into one vector of length 1.
//!
//! As sentence-transformers computes them (Reimers and Gurevych 2019): the states after the final norm, of
//! all tokens, those included that start and end every text.

use crate::{
    config::Config,
    error::{Error, Result},
    files::read_json,
    weights::Gguf,
};
use std::path::Path;

/// How the states of a text's tokens become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean of all.
    Mean,
    /// The last token's.
    Last,
    /// The first token's.
    Cls,
}

impl Pooling {
    /// What a folder of sentence-transformers says in 1_Pooling/config.json, if there is one.
    pub(crate) fn of_folder(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join("1_Pooling").join("config.json");
        if !path.is_file() {
            return Ok(None);
        }
        let (name, json) = (path.display().to_string(), read_json(&path)?);
        let config = Config::new(&name, &json)?;
        for (field, pooling) in [
            ("pooling_mode_mean_tokens", Self::Mean),
            ("pooling_mode_lasttoken", Self::Last),
            ("pooling_mode_cls_token", Self::Cls),
        ] {
            if config.bool(field, false)? {
                return Ok(Some(pooling));
            }
        }
        // The newer form names it.
        match config.get("pooling_mode").and_then(|mode| mode.as_str()) {
            Some("mean") => Ok(Some(Self::Mean)),
            Some("lasttoken") => Ok(Some(Self::Last)),
            Some("cls") => Ok(Some(Self::Cls)),
            _ => {
                tracing::warn!("{name} names none of mean, last and cls: embeddings are pooled by mean");
                Ok(None)
            }
        }
    }

    /// What a GGUF file says in its architecture's `pooling_type`, as llama.cpp numbers them.
    pub(crate) fn of_gguf(gguf: &Gguf) -> Result<Option<Self>> {
        let Some(architecture) = gguf.string("general.architecture")? else { return Ok(None) };
        Ok(match gguf.id(&format!("{architecture}.pooling_type"))? {
            Some(1) => Some(Self::Mean),
            Some(2) => Some(Self::Cls),
            Some(3) => Some(Self::Last),
            _ => None,
        })
    }

    /// The index of the first of `tokens` tokens whose state is needed.
    pub fn from(self, tokens: usize) -> usize {
        match self {
            Self::Mean | Self::Cls => 0,
            Self::Last => tokens - 1,
        }
    }

    /// Pools states, `[tokens, hidden]`, those from [`Pooling::from`] on, and scales the result to length 1.
    ///
    /// # Errors
    /// Of the kind Run where they are not numbers.
    pub fn pool(self, states: &[f32], hidden: usize) -> Result<Vec<f32>> {
        let mut pooled: Vec<f64> = match self {
            Self::Cls => states[..hidden].iter().map(|value| f64::from(*value)).collect(),
            Self::Last => states[states.len() - hidden..].iter().map(|value| f64::from(*value)).collect(),
            Self::Mean => {
                let mut sum = vec![0.0; hidden];
                for state in states.chunks(hidden) {
                    sum.iter_mut().zip(state).for_each(|(sum, value)| *sum += f64::from(*value));
                }
                sum
            }
        };
        let length = pooled.iter().map(|value| value * value).sum::<f64>().sqrt();
        if !length.is_finite() {
            return Err(Error::run(
                "the text's hidden states are not numbers: the model's weights are damaged",
            ));
        }
        if length > 0.0 {
            pooled.iter_mut().for_each(|value| *value /= length);
        }
        Ok(pooled.into_iter().map(|value| value as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_pooled_and_scaled() {
        let states = [3.0, 0.0, 0.0, 4.0];
        let pool = |pooling: Pooling| pooling.pool(&states[pooling.from(2) * 2..], 2).expect("numbers");
        assert_eq!(pool(Pooling::Cls), [1.0, 0.0]);
        assert_eq!(pool(Pooling::Last), [0.0, 1.0]);
        assert_eq!(pool(Pooling::Mean), [0.6, 0.8]);
        assert_eq!(Pooling::Mean.pool(&[0.0, 0.0], 2).expect("numbers"), [0.0, 0.0]);
        assert!(Pooling::Mean.pool(&[f32::NAN, 0.0], 2).is_err());
    }
}
