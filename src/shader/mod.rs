//! WGSL programs. The first `#import name` line is replaced by the file that the program chooses to implement
//! interface `name`, and later ones are dropped; everything else is plain WGSL.

mod translation;

pub use translation::Compiler;

use std::fmt::Write;

/// A shader file, the files that implement the interfaces that it imports, and the values of its overrides.
#[derive(Clone, Debug)]
pub struct Program {
    pub name: &'static str,
    pub source: &'static str,
    /// (interface, source)
    pub imports: Vec<(&'static str, &'static str)>,
    /// (override, value)
    pub constants: Vec<(&'static str, f64)>,
}

impl Program {
    /// Identifies the program by its text and constants, not by its name.
    pub fn key(&self) -> String {
        format!("{:?}\n{}", self.constants, self.wgsl())
    }

    /// The directives that a browser wants before the WGSL text: it must be told of each extension that the
    /// program uses. naga, which reads the text elsewhere, does not know all of them.
    pub fn browser_prelude(&self) -> &'static str {
        if self.uses_subgroups() { "enable subgroups;\n" } else { "" }
    }

    fn uses_subgroups(&self) -> bool {
        self.wgsl().contains("@builtin(subgroup_")
    }

    /// The WGSL text.
    pub fn wgsl(&self) -> String {
        let (mut text, mut seen) = (String::new(), Vec::new());
        self.expand(self.source, &mut seen, &mut text);
        text
    }

    fn expand<'a>(&'a self, source: &'a str, seen: &mut Vec<&'a str>, text: &mut String) {
        for line in source.lines() {
            let Some(name) = line.strip_prefix("#import ") else {
                writeln!(text, "{line}").expect("writing to a string");
                continue;
            };
            if !seen.contains(&name) {
                seen.push(name);
                let file = self.imports.iter().find(|(n, _)| *n == name);
                let (_, file) = file.unwrap_or_else(|| panic!("{}: nothing implements {name}", self.name));
                self.expand(file, seen, text);
            }
        }
    }
}
