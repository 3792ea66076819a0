//! Tokens that the settings add to a vocabulary, as transformers' `TokenizersBackend` does.

use super::{Settings, Tokenizer};
use tokenizers::{
    AddedToken, ModelWrapper,
    processors::template::{SpecialToken, TemplateProcessing},
};

impl Tokenizer {
    /// Adds the tokens of the settings.
    pub(super) fn add(&mut self, settings: &Settings) -> tokenizers::Result<()> {
        let Settings { listed, lists_all, named, of_class, extra, .. } = settings;
        self.inner.add_tokens(listed.values().cloned())?;
        let is_in_vocabulary = |token: &&AddedToken| self.inner.token_to_id(&token.content).is_some();
        let of_class: Vec<_> = of_class.iter().filter(is_in_vocabulary).collect();
        // A role makes a known token special, and leaves its other flags.
        let by_role = |token: &AddedToken| match self.added(&token.content) {
            Some(_) if *lists_all && !listed.values().any(|one| one.content == token.content) => None,
            known => Some(AddedToken { special: true, ..known.unwrap_or(token).clone() }),
        };
        let by_role: Vec<_> = named.iter().chain(of_class).filter_map(by_role).collect();
        self.inner.add_tokens(by_role)?;
        let is_new = |token: &&AddedToken| self.added(&token.content).is_none();
        let extra: Vec<_> = extra.iter().filter(is_new).cloned().collect();
        self.inner.add_tokens(extra)?;
        // BPE has no blanks too many.
        self.cleans_up = settings.cleans_up && !matches!(self.inner.get_model(), ModelWrapper::BPE(_));
        Ok(())
    }

    /// The added token with this text.
    fn added(&self, text: &str) -> Option<&AddedToken> {
        let vocabulary = self.inner.get_added_vocabulary();
        vocabulary.get_added_tokens_decoder().get(vocabulary.get_vocab().get(text)?)
    }

    /// Puts the start and end tokens around every text, where the settings ask for them.
    pub(super) fn put_ends(&mut self, settings: &Settings) -> tokenizers::Result<()> {
        let token = |role: &str, wanted: bool| {
            let text = settings.special_tokens.get(role).filter(|_| wanted)?;
            Some((text.clone(), self.inner.token_to_id(text)?))
        };
        let (bos, eos) = (token("bos_token", settings.add_bos), token("eos_token", settings.add_eos));
        let pieces = [
            bos.as_ref().map(|(text, _)| text.as_str()),
            Some("$A"),
            eos.as_ref().map(|(text, _)| text.as_str()),
        ];
        let single: Vec<&str> = pieces.into_iter().flatten().collect();
        if single.len() > 1 {
            let special: Vec<SpecialToken> =
                [bos.clone(), eos.clone()].into_iter().flatten().map(SpecialToken::from).collect();
            let template =
                TemplateProcessing::builder().try_single(single)?.special_tokens(special).build()?;
            self.inner.with_post_processor(Some(template));
        }
        Ok(())
    }
}
