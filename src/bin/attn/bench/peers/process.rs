//! A process with a limit: what it printed, and how it ended.

use std::io::{self, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A process that ended.
pub struct Finished {
    pub stdout: String,
    pub stderr: String,
    /// None: it was ended at the limit.
    pub status: Option<ExitStatus>,
    limit: Duration,
}

impl Finished {
    /// Why it is no success, if it is none.
    pub fn failure(&self) -> Option<String> {
        let what = match self.status {
            Some(status) if status.success() => return None,
            Some(status) => status.to_string(),
            None => format!("ended after {} s without an answer", self.limit.as_secs_f64()),
        };
        Some(match self.last_words() {
            Some(line) => format!("{what}: {line}"),
            None => what,
        })
    }

    /// What it said last about itself: the message of a panic in Rust, else the last line.
    pub fn last_words(&self) -> Option<&str> {
        let mut lines = self.stderr.lines().map(str::trim).filter(|line| !line.is_empty());
        let panic = lines.clone().skip_while(|line| !line.contains("panicked at")).nth(1);
        let line = panic.or(lines.next_back())?;
        Some(match line.char_indices().nth(300) {
            Some((end, _)) => &line[..end],
            None => line,
        })
    }
}

/// Runs a command until it ends, or for so long.
pub fn run(command: &mut Command, limit: Duration) -> io::Result<Finished> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    #[cfg(unix)]
    {
        // A group of its own, so that what it starts ends with it.
        use std::os::unix::process::CommandExt as _;
        command.process_group(0);
    }
    let start = Instant::now();
    let mut child = command.spawn()?;
    let (sender, ended) = mpsc::channel();
    let stdout = collect(child.stdout.take(), sender.clone());
    let stderr = collect(child.stderr.take(), sender);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if start.elapsed() >= limit {
            break None;
        }
        // Seldom, since the process is being timed.
        thread::sleep(Duration::from_millis(20));
    };
    // A process may leave others behind that hold its pipes.
    if status.is_none() || !both_ended(&ended) {
        kill(&mut child);
        both_ended(&ended);
    }
    let text = |bytes: &Mutex<Vec<u8>>| {
        let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Finished {
        stdout: text(&stdout),
        stderr: text(&stderr),
        status,
        limit,
    })
}

/// Reads to the end in a thread: the first bytes are kept, and the end is told.
fn collect(pipe: Option<impl Read + Send + 'static>, ended: Sender<()>) -> Arc<Mutex<Vec<u8>>> {
    const KEPT: usize = 1 << 20;
    let bytes = Arc::new(Mutex::new(Vec::new()));
    let Some(mut pipe) = pipe else { return bytes };
    let kept = Arc::clone(&bytes);
    thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut chunk) {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let room = KEPT.saturating_sub(kept.len()).min(count);
            kept.extend_from_slice(&chunk[..room]);
        }
        // Nobody may be waiting any more.
        let _ = ended.send(());
    });
    bytes
}

fn both_ended(ended: &Receiver<()>) -> bool {
    (0..2).all(|_| ended.recv_timeout(Duration::from_secs(1)) != Err(mpsc::RecvTimeoutError::Timeout))
}

/// Ends it and what it started.
fn kill(child: &mut Child) {
    let id = child.id().to_string();
    let mut all = if cfg!(windows) {
        let mut command = Command::new("taskkill");
        command.args(["/T", "/F", "/PID", &id]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", "kill -s KILL -- \"-$0\"", &id]);
        command
    };
    // Where this fails, the process itself is still ended.
    let _ = all.stdout(Stdio::null()).stderr(Stdio::null()).status();
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn sh(script: &str, limit_ms: u64) -> Finished {
        run(Command::new("sh").args(["-c", script]), Duration::from_millis(limit_ms)).unwrap()
    }

    #[test]
    fn output_and_failure_are_kept() {
        let right = sh("echo out; echo err >&2", 10_000);
        assert_eq!((right.stdout.as_str(), right.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(right.failure(), None);
        let wrong = sh("echo first >&2; echo last >&2; exit 3", 10_000);
        let why = wrong.failure().unwrap();
        assert!(why.contains('3') && why.ends_with(": last"), "{why}");
        let panic = sh(
            "printf 'thread main panicked at x.rs:1:2:\\nno adapter\\nnote: more\\n' >&2; exit 101",
            10_000,
        );
        assert!(panic.failure().unwrap().ends_with(": no adapter"));
        let long = sh("head -c 3000 /dev/zero | tr '\\0' x >&2; exit 1", 10_000);
        assert_eq!(long.last_words().unwrap().len(), 300);
    }

    #[test]
    fn a_process_that_hangs_is_ended_with_all_that_it_started() {
        let start = Instant::now();
        let hanging = sh("echo one; echo why >&2; sleep 60 & sleep 60", 300);
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(hanging.stdout, "one\n");
        assert!(hanging.status.is_none());
        let why = hanging.failure().unwrap();
        assert!(why.contains("0.3 s") && why.contains("why"), "{why}");
        // One that ends, but leaves another behind.
        let start = Instant::now();
        let left = sh("sleep 60 & echo done", 20_000);
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!((left.stdout.as_str(), left.failure()), ("done\n", None));
    }

    #[test]
    fn floods_are_cut() {
        let flood = sh("head -c 3000000 /dev/zero | tr '\\0' x", 20_000);
        assert_eq!(flood.stdout.len(), 1 << 20);
        assert_eq!(flood.failure(), None);
    }
}
