//! What somebody says to a program, message by message: typed with an editor's help, or read from stdin.

use crate::error::{Error, Result};
use rustyline::{DefaultEditor, error::ReadlineError};
use std::io::{BufRead, IsTerminal};

/// Messages, typed or read.
pub struct Lines {
    /// Of a terminal.
    editor: Option<DefaultEditor>,
}

/// What begins and ends a message of several lines.
const FENCE: &str = "\"\"\"";

impl Lines {
    /// An editor with the history of earlier conversations where stdin and stdout are a terminal.
    pub fn open() -> Self {
        let typed = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let editor = typed.then(|| DefaultEditor::new().ok()).flatten();
        let mut lines = Self { editor };
        if let (Some(editor), Some(path)) = (&mut lines.editor, history()) {
            // The first time there is none.
            let _ = editor.load_history(&path);
        }
        lines
    }

    /// Whether somebody types them.
    pub fn are_typed(&self) -> bool {
        self.editor.is_some()
    }

    /// The next message; none at the end.
    pub fn next(&mut self) -> Result<Option<String>> {
        let Some(editor) = &mut self.editor else { return from_stdin() };
        let mut message = String::new();
        let mut fenced = false;
        loop {
            let line = match editor.readline(if message.is_empty() && !fenced { ">>> " } else { "... " }) {
                Ok(line) => line,
                // What was begun is dropped.
                Err(ReadlineError::Interrupted) => {
                    (message, fenced) = (String::new(), false);
                    continue;
                }
                Err(ReadlineError::Eof) => return Ok(None),
                Err(e) => return Err(Error::run(format!("the terminal cannot be read: {e}")).because(e)),
            };
            if line.trim() == FENCE {
                fenced = !fenced;
            } else if let Some(begun) = line.strip_suffix('\\').filter(|_| !fenced) {
                message = message + begun + "\n";
                continue;
            } else {
                message += &line;
                if fenced {
                    message += "\n";
                }
            }
            if !fenced {
                let _ = editor.add_history_entry(message.trim_end());
                return Ok(Some(message));
            }
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if let (Some(editor), Some(path)) = (&mut self.editor, history()) {
            let _ = path.parent().map(std::fs::create_dir_all);
            // A history that cannot be kept is no reason to fail.
            let _ = editor.save_history(&path);
        }
    }
}

fn history() -> Option<std::path::PathBuf> {
    Some(dirs::data_local_dir()?.join("wgpt/history.txt"))
}

/// A line is a message.
fn from_stdin() -> Result<Option<String>> {
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(0) => Ok(None),
        Ok(_) => Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned())),
        Err(e) => Err(Error::request(format!("stdin cannot be read: {e}")).because(e)),
    }
}
