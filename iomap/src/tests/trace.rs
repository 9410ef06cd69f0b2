//! Trace points: at the begin, when queued, at the end. They go through `log`.

use std::cell::RefCell;
use std::sync::Once;

use super::*;

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the lines of each thread, which is each test.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Trace {
            LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

fn lines() -> Vec<String> {
    LINES.with_borrow_mut(std::mem::take)
}

fn traced() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Lines).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}

#[test]
fn both_paths_are_traced_from_begin_to_end() {
    traced();
    let mut rig = Rig::plain(64);
    rig.files.follow_log_level();
    for (flags, bytes, points) in [(IoFlags::empty(), 512, 2), (IoFlags::GENERIC, 4096, 1)] {
        lines();
        let memory = rig.buf(bytes).into();
        rig.files.submit_read_with(&mut rig.file, at(1024, flags), memory).unwrap();
        let submitted = lines();
        assert_eq!(submitted.len(), points, "{flags:?}: {submitted:?}");
        assert!(submitted.iter().all(|line| line.contains("1024")), "{submitted:?}");
        assert!(points == 1 || submitted[1].contains("queued"), "{submitted:?}");
        assert_eq!(rig.files.poll(8, |_| ()), 1);
        let ended = lines();
        assert_eq!(ended.len(), 1);
        assert!(ended[0].contains("1024") && ended[0].contains("done"), "{ended:?}");
    }
    let buf = rig.buf(512);
    rig.files.submit_read(&mut rig.file, 1024, buf, 0).unwrap();
    rig.drain();
    let all = lines();
    assert_eq!(all.len(), 3, "the shortest way, too: {all:?}");
    rig.read(IoArgs::at(1024), 512).unwrap();
    let all = lines();
    assert_eq!(all.len(), 3, "who waits, too: {all:?}");
    // Errors.
    rig.files.queue.failing = (0..64).collect();
    let buf = rig.buf(512);
    rig.files.submit_read(&mut rig.file, 1024, buf, 0).unwrap();
    rig.drain();
    assert!(lines().iter().any(|line| line.contains("failed")));
}

#[test]
fn a_queue_that_is_not_traced_says_nothing_on_the_simple_path() {
    let mut rig = Rig::plain(64);
    rig.files.state.mode = crate::queue::state::Mode::default();
    lines();
    let buf = rig.buf(512);
    rig.files.submit_read(&mut rig.file, 1024, buf, 0).unwrap();
    assert_eq!(rig.files.poll(1, |_| ()), 1);
    assert!(lines().is_empty());
}
