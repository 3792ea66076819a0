//! llama-server's flags: its command lines start `wgpt serve` as they are, if what they ask for is possible.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use std::{ffi::OsString, ops::RangeInclusive};

/// Names that are parsed as others: short ones of more than one letter, and those that this program has
/// another word for.
const NAMES: [(&str, &str); 14] = [
    ("-cb", "--cont-batching"),
    ("-ctk", "--cache-type-k"),
    ("-ctv", "--cache-type-v"),
    ("-fa", "--flash-attn"),
    ("-hf", "--hf-repo"),
    ("-hfr", "--hf-repo"),
    ("-kvu", "--kv-unified"),
    ("-lv", "--verbosity"),
    ("-ngl", "--gpu-layers"),
    ("-np", "--parallel"),
    ("-tb", "--threads-batch"),
    ("-to", "--timeout"),
    ("-ub", "--ubatch-size"),
    ("--log-disable", "--quiet"),
];

/// Flags that ask for what is so here anyway, or that no answer depends on, by how many values follow them.
const WITHOUT_EFFECT: [(RangeInclusive<usize>, &[&str]); 3] = [
    (
        0..=0,
        &[
            "cache-prompt",
            "cont-batching",
            "embedding",
            "embeddings",
            "jinja",
            "kv-unified",
            "log-prefix",
            "log-timestamps",
            "mlock",
            "mmap",
            "no-jinja",
            "no-mmap",
            "no-perf",
            "no-warmup",
            "perf",
            "props",
            "ui",
            "warmup",
            "webui",
        ],
    ),
    (0..=1, &["flash-attn"]),
    (
        1..=1,
        &[
            "batch-size",
            "numa",
            "poll",
            "prio",
            "threads-batch",
            "threads-http",
            "timeout",
            "ubatch-size",
            "verbosity",
        ],
    ),
];

/// An argument by the name that it is parsed as.
pub fn parsed_as(argument: OsString) -> OsString {
    let other = NAMES.into_iter().find(|(name, _)| argument == *name);
    other.map_or(argument, |(_, other)| other.into())
}

/// Takes the flags that have no effect.
#[derive(Clone)]
pub struct WithoutEffect;

impl Args for WithoutEffect {
    fn augment_args(command: Command) -> Command {
        let flags = WITHOUT_EFFECT.into_iter().flat_map(|(values, names)| {
            names.iter().map(move |name| {
                let flag = Arg::new(*name).long(*name).hide(true);
                let flag = if *name == "batch-size" { flag.short('b') } else { flag };
                match *values.end() {
                    0 => flag.action(ArgAction::Count),
                    _ => flag.action(ArgAction::Append).num_args(values.clone()).allow_negative_numbers(true),
                }
            })
        });
        command.args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for WithoutEffect {
    fn from_arg_matches(_: &ArgMatches) -> Result<Self, Error> {
        Ok(Self)
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> Result<(), Error> {
        Ok(())
    }
}
