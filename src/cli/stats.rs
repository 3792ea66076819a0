//! What an answer took: `--stats`, and /stats of a conversation.

use crate::engine::{Engine, Timing};
use std::{fmt, time::Duration};

/// The numbers, in words.
pub struct Stats<'a> {
    pub engine: &'a Engine,
    pub timing: Timing,
}

impl fmt::Display for Stats<'_> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { engine, timing } = self;
        let pace = |tokens: usize, time: Duration| {
            let seconds = time.as_secs_f64();
            format!("{tokens} tokens in {seconds:.2} s, {:.1} a second", tokens as f64 / seconds.max(1e-9))
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let plans = engine.plans();
        writeln!(
            f,
            "loading   {:.2} s for weights, programs {:.2} s longer",
            engine.load_time.load.as_secs_f64(),
            engine.load_time.compile.as_secs_f64()
        )?;
        let prefill = pace(timing.prefill_tokens, timing.prefill);
        writeln!(f, "prefill   {prefill}; the first of the answer came with them")?;
        writeln!(f, "decode    {}", pace(timing.decode_tokens, timing.decode))?;
        writeln!(
            f,
            "memory    {:.1} MiB of weights, {:.1} MiB of cache for {} tokens",
            mib(plans.weights_bytes()),
            mib(plans.cache_bytes()),
            engine.context()
        )
    }
}
