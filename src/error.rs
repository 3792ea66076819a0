//! The one error for the outside world: what is wrong, what to do about it, and the exit code that goes with
//! it.
//!
//! An error names settings as data ([`Setting`], [`Remedy`]), for who reads it knows them by other names:
//! here by those of the library, on the command line by flags. [`Error::worded`] puts it into anybody's
//! words.

use std::fmt;

/// What can go wrong for a user. Its text is one sentence in the library's words; `source()` holds the cause.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    setting: Option<Setting>,
    message: String,
    remedy: Option<Remedy>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Whose fault an [`Error`] is, which decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something failed while running.
    Run,
    /// A wrong argument or request.
    Request,
    /// The model is missing, damaged or not supported.
    Model,
    /// No suitable device.
    Device,
    /// Not enough memory.
    Memory,
}

impl Kind {
    /// The process's exit code for errors of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Run => 1,
            Self::Request => 2,
            Self::Model => 3,
            Self::Device => 4,
            Self::Memory => 5,
        }
    }
}

/// A setting that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    Context,
    RequireGpu,
    Temperature,
    TopP,
    MinP,
    TypicalP,
    XtcProbability,
    XtcThreshold,
    RepetitionPenalty,
    FrequencyPenalty,
    PresencePenalty,
    DryMultiplier,
    DryBase,
    MirostatTarget,
    MirostatRate,
    /// The bias of a token.
    Bias(u32),
}

/// What to do about an error, where that is a matter of settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Run on the CPU.
    UseCpu,
    /// See whether the CPU gives the same.
    CompareWithCpu,
    /// A shorter prompt, or a longer context.
    ShortenOrRaiseContext,
    /// A shorter context.
    LowerContext,
    /// A context of at most so many positions.
    LowerContextTo(u32),
    /// A shorter context, a smaller model, or the CPU.
    LessMemory,
    /// A text, or the tokens that start one.
    GiveText,
    /// Measure as a whole, not pass by pass.
    MeasureWithoutProfile,
    /// Quantise when the model is loaded.
    QuantizeAtLoad,
    /// Quantise when the model is loaded, or accept that the file's tokenizer differs.
    QuantizeAtLoadOrForce,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, setting: None, message: message.into(), remedy: None, cause: None }
    }
    pub fn run(message: impl Into<String>) -> Self {
        Self::new(Kind::Run, message)
    }
    pub fn request(message: impl Into<String>) -> Self {
        Self::new(Kind::Request, message)
    }
    pub fn model(message: impl Into<String>) -> Self {
        Self::new(Kind::Model, message)
    }
    pub fn device(message: impl Into<String>) -> Self {
        Self::new(Kind::Device, message)
    }
    pub fn memory(message: impl Into<String>) -> Self {
        Self::new(Kind::Memory, message)
    }
    /// Of the kind Request: a setting has a wrong value. The message follows the setting's name, as in "is 3,
    /// but it must be at most 1".
    pub fn setting(setting: Setting, message: impl Into<String>) -> Self {
        Self { setting: Some(setting), ..Self::request(message) }
    }

    /// The same error of another kind.
    pub fn of_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same error, with what to do about it. The remedy follows the message.
    pub fn with_remedy(self, remedy: Remedy) -> Self {
        Self { remedy: Some(remedy), ..self }
    }

    /// The same error, with what caused it.
    pub fn because(self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { cause: Some(cause.into()), ..self }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The setting that it is about, if it is about one.
    pub fn about(&self) -> Option<Setting> {
        self.setting
    }

    /// What to do about it, where that is a matter of settings.
    pub fn remedy(&self) -> Option<Remedy> {
        self.remedy
    }

    /// The error in one sentence, its settings and remedies in somebody's words.
    pub fn worded(&self, setting: impl Fn(Setting) -> String, remedy: impl Fn(Remedy) -> String) -> String {
        let setting = self.setting.map_or_else(String::new, |of| setting(of) + " ");
        let remedy = self.remedy.map_or_else(String::new, |of| format!("; {}", remedy(of)));
        format!("{setting}{}{remedy}", self.message)
    }

    /// The process's exit code for this error.
    pub fn exit_code(&self) -> u8 {
        self.kind.exit_code()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.worded(|setting| setting.to_string(), |remedy| remedy.to_string()))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Context => "the context",
            Self::RequireGpu => "require_gpu",
            Self::Temperature => "temperature",
            Self::TopP => "top_p",
            Self::MinP => "min_p",
            Self::TypicalP => "typical_p",
            Self::XtcProbability => "xtc.probability",
            Self::XtcThreshold => "xtc.threshold",
            Self::RepetitionPenalty => "penalties.repetition",
            Self::FrequencyPenalty => "penalties.frequency",
            Self::PresencePenalty => "penalties.presence",
            Self::DryMultiplier => "dry.multiplier",
            Self::DryBase => "dry.base",
            Self::MirostatTarget => "mirostat.target",
            Self::MirostatRate => "mirostat.rate",
            Self::Bias(token) => return write!(f, "the bias of token {token}"),
        })
    }
}

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::UseCpu => "use the CPU",
            Self::CompareWithCpu => "compare with the CPU",
            Self::ShortenOrRaiseContext => "shorten it or raise the context",
            Self::LowerContext => "ask for a shorter context",
            Self::LowerContextTo(most) => return write!(f, "ask for a context of at most {most}"),
            Self::LessMemory => "ask for a shorter context or a smaller model, or use the CPU",
            Self::GiveText => "give a text, or let the tokens be added that start one",
            Self::MeasureWithoutProfile => "measure without a profile",
            Self::QuantizeAtLoad => "it can be quantised when it is loaded",
            Self::QuantizeAtLoadOrForce => "it can be quantised when it is loaded, or forced to do without",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_put_into_anybodys_words() {
        let error = Error::setting(Setting::TopP, "is 2, but it must be at most 1");
        assert_eq!(error.to_string(), "top_p is 2, but it must be at most 1");
        assert_eq!(error.worded(|_| "--top-p".to_owned(), |_| String::new())[..10], *"--top-p is");
        assert_eq!((error.kind(), error.about(), error.remedy()), (Kind::Request, Some(Setting::TopP), None));
        let error = Error::memory("there is not enough").with_remedy(Remedy::LowerContextTo(32));
        assert_eq!(error.to_string(), "there is not enough; ask for a context of at most 32");
        assert_eq!(error.exit_code(), 5);
    }
}
