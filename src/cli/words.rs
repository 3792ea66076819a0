//! Errors in the command line's words: settings are flags here.

use crate::error::{Remedy, Setting};

/// The flag that sets a setting.
pub fn flag(setting: Setting) -> String {
    match setting {
        Setting::Context => "--ctx",
        Setting::RequireGpu => "--require-gpu",
        Setting::Temperature => "--temperature",
        Setting::TopP => "--top-p",
        Setting::MinP => "--min-p",
        Setting::TypicalP => "--typical",
        Setting::XtcProbability => "--xtc-probability",
        Setting::XtcThreshold => "--xtc-threshold",
        Setting::RepetitionPenalty => "--repeat-penalty",
        Setting::FrequencyPenalty => "--frequency-penalty",
        Setting::PresencePenalty => "--presence-penalty",
        Setting::DryMultiplier => "--dry-multiplier",
        Setting::DryBase => "--dry-base",
        Setting::MirostatTarget => "--mirostat-ent",
        Setting::MirostatRate => "--mirostat-lr",
        Setting::Bias(token) => return format!("--logit-bias of {token}"),
    }
    .to_owned()
}

/// What to do, by which flags.
pub fn words(remedy: Remedy) -> String {
    match remedy {
        Remedy::UseCpu => "use --device cpu",
        Remedy::CompareWithCpu => "compare with --device cpu",
        Remedy::ShortenOrRaiseContext => "shorten it or raise --ctx",
        Remedy::LowerContext => "ask for a shorter context (--ctx)",
        Remedy::LowerContextTo(most) => return format!("ask for at most --ctx {most}"),
        Remedy::LessMemory => "ask for a shorter context (--ctx) or a smaller model, or use --device cpu",
        Remedy::GiveText => "give a text, or leave --raw away",
        Remedy::MeasureWithoutProfile => "measure without --profile",
        Remedy::QuantizeAtLoad => "it can be quantised at load only, with generate --quantize",
        Remedy::QuantizeAtLoadOrForce => {
            "quantise it at load, with generate --quantize, or do without that, with --force"
        }
    }
    .to_owned()
}
