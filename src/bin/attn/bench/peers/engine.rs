//! The engines to compare with, which are data: `benches/engines/*.toml`, one file each.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf, absolute};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::process;

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EngineFile {
    name: String,
    /// What the files here were written for; the process says what it is.
    version: String,
    runs_on: RunsOn,
    /// The program and its arguments; `${NAME}` and `${NAME:-otherwise}` are taken from the environment, here as below.
    /// Paths are from the folder of the file; a program without a slash is looked for in `PATH`.
    command: Vec<String>,
    /// What to type in that folder so that the program is there.
    build: String,
    /// Files and folders without which it does not run.
    #[serde(default)]
    needs: Vec<String>,
    /// A command that succeeds where everything is installed.
    #[serde(default)]
    probe: Vec<String>,
    /// Variables of the process.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// What there is to know when one reads its numbers.
    #[serde(default)]
    known: String,
}

/// Where an engine computes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunsOn {
    /// Vulkan, WebGPU: the same adapter as ours.
    Gpu,
    /// The processor, by no interface for GPUs.
    Cpu,
}

/// An engine that there is a file for.
#[derive(Clone, Debug)]
pub struct Engine {
    file: EngineFile,
    folder: PathBuf,
}

impl Engine {
    /// All of a folder, by name.
    pub fn read_all(folder: &Path) -> anyhow::Result<Vec<Engine>> {
        let folder = absolute(folder).with_context(|| format!("cannot use {}", folder.display()))?;
        let entries = std::fs::read_dir(&folder)
            .with_context(|| format!("cannot read the engines' folder {}", folder.display()))?;
        let mut engines = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                continue;
            }
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let file: EngineFile = toml::from_str(&text).with_context(|| format!("{}", path.display()))?;
            anyhow::ensure!(!file.command.is_empty(), "{}: no command", path.display());
            engines.push(Engine {
                file,
                folder: folder.clone(),
            });
        }
        engines.sort_by(|a, b| a.file.name.cmp(&b.file.name));
        anyhow::ensure!(!engines.is_empty(), "no engine in {}", folder.display());
        Ok(engines)
    }

    pub fn name(&self) -> &str {
        &self.file.name
    }

    pub fn version(&self) -> &str {
        &self.file.version
    }

    pub fn runs_on(&self) -> RunsOn {
        self.file.runs_on
    }

    /// What there is to know, in one line.
    pub fn known(&self) -> String {
        self.file.known.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The command for a case, or why there is none here.
    pub fn command(&self) -> Result<Command, String> {
        let missing = |what: String| format!("{what}; to build it, in {}: {}", self.folder.display(), self.file.build);
        for path in self.expand_all(&self.file.needs)? {
            if !self.folder.join(&path).exists() {
                return Err(missing(format!("there is no {path}")));
            }
        }
        let command = self.prepare(&self.file.command)?.map_err(missing)?;
        if !self.file.probe.is_empty() {
            let mut probe = self.prepare(&self.file.probe)?.map_err(missing)?;
            let finished = process::run(&mut probe, Duration::from_secs(60)).map_err(|error| error.to_string())?;
            if let Some(why) = finished.failure() {
                return Err(missing(why));
            }
        }
        Ok(command)
    }

    /// A command in the folder, or what of it is missing.
    fn prepare(&self, words: &[String]) -> Result<Result<Command, String>, String> {
        let words = self.expand_all(words)?;
        let Some(program) = find_program(&words[0], &self.folder) else {
            return Ok(Err(format!("there is no {}", words[0])));
        };
        let mut command = Command::new(program);
        command.args(&words[1..]).current_dir(&self.folder);
        for (name, value) in &self.file.env {
            command.env(name, expand(value, variable)?);
        }
        Ok(Ok(command))
    }

    fn expand_all(&self, words: &[String]) -> Result<Vec<String>, String> {
        words.iter().map(|word| expand(word, variable)).collect()
    }
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// Replaces `${NAME}` and `${NAME:-otherwise}`.
fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (inner, behind) = after
            .split_once('}')
            .ok_or_else(|| format!("{text:?} lacks a closing brace"))?;
        let (name, otherwise) = match inner.split_once(":-") {
            Some((name, otherwise)) => (name, Some(otherwise)),
            None => (inner, None),
        };
        expanded += before;
        expanded += &variable(name)
            .or(otherwise.map(str::to_owned))
            .ok_or_else(|| format!("the environment has no {name}"))?;
        rest = behind;
    }
    Ok(expanded + rest)
}

fn find_program(name: &str, folder: &Path) -> Option<PathBuf> {
    let candidates = |path: PathBuf| {
        let mut with_suffix = path.clone().into_os_string();
        with_suffix.push(env::consts::EXE_SUFFIX);
        [path, PathBuf::from(with_suffix)]
    };
    let is_there = |path: &PathBuf| path.is_file();
    if name.contains(['/', '\\']) {
        return candidates(folder.join(name)).into_iter().find(is_there);
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .flat_map(|folder| candidates(folder.join(name)))
        .find(is_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced() {
        let variable = |name: &str| (name == "HERE").then(|| "there".to_owned());
        assert_eq!(expand("a/${HERE}/b", variable).unwrap(), "a/there/b");
        assert_eq!(expand("${HERE:-x}${NOT:-y}${NOT:-}", variable).unwrap(), "therey");
        assert_eq!(expand("$HERE", variable).unwrap(), "$HERE");
        assert!(expand("${NOT}", variable).unwrap_err().contains("NOT"));
        assert!(expand("${HERE", variable).is_err());
    }

    #[test]
    fn the_files_of_this_repository_are_read() {
        let engines = Engine::read_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/engines")).unwrap();
        let names: Vec<_> = engines.iter().map(Engine::name).collect();
        assert!(names.contains(&"burn"), "{names:?}");
        for engine in &engines {
            assert!(
                !engine.known().is_empty() && !engine.version().is_empty(),
                "{}",
                engine.name()
            );
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_said_to_be_built() {
        let file = |text: &str| toml::from_str::<EngineFile>(text);
        let text = "name = 'x'\nversion = '1'\nruns_on = 'gpu'\ncommand = ['no/such/program']\nbuild = 'make x'\n";
        let engine = Engine {
            file: file(text).unwrap(),
            folder: env::temp_dir(),
        };
        let why = engine.command().unwrap_err();
        assert!(why.contains("no/such/program") && why.contains("make x"), "{why}");
        assert!(file(&format!("{text}surprise = 1\n")).is_err());
    }
}
