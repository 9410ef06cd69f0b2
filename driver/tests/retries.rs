//! Repetitions of commands on the embedded controller.

use std::time::Duration;

use nvio_driver::spec::opcode::nvm;
use nvio_driver::spec::{CopyRange, DsmRange, Status, status};
use nvio_driver::{
    CommandOptions, Controller, Counters, Error, Options, QueuePair, ScatterList, WritableNamespace,
};
use nvio_emulator::{Backing, Emulator, Fault, Faults, NamespaceConfig, Rule};
use nvio_testkit::controller::{open_at, writable};

struct Served {
    // Dropped in this order.
    queue: QueuePair<u64>,
    namespace: WritableNamespace,
    controller: Controller,
    _emulator: Emulator,
}

/// Serves a controller with `faults`, and opens it with commands that may take 400 ms.
fn served(retries: u8, faults: Faults) -> Served {
    let namespace = NamespaceConfig::new(Backing::memory(1 << 20));
    let emulator = Emulator::builder().namespace(namespace).faults(faults).start().unwrap();
    let io_timeout = Duration::from_millis(400);
    let options = Options { io_timeout, retries, ..writable() };
    let controller = open_at(emulator.socket(), options);
    let namespace = controller.writable().unwrap().writable_namespace(1).unwrap();
    let queue = controller.queue_pair(8).unwrap();
    Served { queue, namespace, controller, _emulator: emulator }
}

impl Served {
    /// Writes block 3 and reads it again, and returns the counters.
    fn round_trip(&mut self) -> Result<Counters, Error> {
        let Self { queue, namespace, .. } = self;
        let mut blocking = queue.blocking(9, drop);
        blocking.write_bytes(namespace, 1536, &[0xa5; 512])?;
        let mut data = [0; 512];
        blocking.read_bytes(namespace, 1536, &mut data)?;
        assert_eq!(data, [0xa5; 512]);
        Ok(queue.counters())
    }

    /// Waits for the only command in flight.
    fn status(&mut self) -> Status {
        let mut status = None;
        while self.queue.in_flight() > 0 {
            self.queue.wait(|done| status = Some(done.status)).unwrap();
        }
        status.unwrap()
    }
}

#[test]
fn errors_that_pass_are_not_seen_but_counted() {
    for opcode in [nvm::READ, nvm::WRITE] {
        let fault = Fault::Status(status::UNRECOVERED_READ_ERROR);
        let mut served = served(3, Faults::new().rule(Rule::new(fault).opcode(opcode).times(3)));
        let counters = served.round_trip().unwrap();
        assert_eq!((counters.retries, counters.errors, counters.submitted), (3, 0, 2));
        assert_eq!(served.queue.in_flight(), 0);
    }
}

#[test]
fn errors_that_last_are_reported() {
    let lasting = status::INTERNAL_ERROR;
    for (retries, status, attempts) in
        [(2, lasting, 2), (0, lasting, 0), (5, lasting.do_not_retry(), 0)]
    {
        let rule = Rule::new(Fault::Status(status)).opcode(nvm::READ);
        let mut served = served(retries, Faults::new().rule(rule));
        let error = served.round_trip().unwrap_err();
        assert!(matches!(error, Error::Io { status: seen, .. } if seen == status), "{error}");
        let counters = served.queue.counters();
        assert_eq!((counters.retries, counters.errors), (attempts, 1));
    }
}

#[test]
fn lost_completions_are_survived_with_an_abort_and_with_a_reset() {
    for opcode in [nvm::READ, nvm::WRITE] {
        let lost = Rule::new(Fault::Lost).opcode(opcode).times(1);
        let mut aborted = served(1, Faults::new().rule(lost.clone()));
        let counters = aborted.round_trip().unwrap();
        assert_eq!((counters.retries, counters.errors, counters.resets), (1, 0, 0));

        let stuck = Rule::new(Fault::NotAbortable).opcode(opcode).times(1);
        let mut reset = served(1, Faults::new().rule(lost).rule(stuck));
        let counters = reset.round_trip().unwrap();
        assert_eq!((counters.retries, counters.errors, counters.resets), (1, 0, 1));
        assert_eq!(reset.controller.resets().unrequested(), 1);
    }
}

#[test]
fn commands_whose_second_execution_differs_are_not_repeated() {
    let rule = Rule::new(Fault::Status(status::INTERNAL_ERROR));
    let mut served = served(5, Faults::new().rule(rule));
    let Served { queue, namespace, controller, .. } = &mut served;
    let page = || controller.alloc(4096).unwrap();
    let list = ScatterList::new(vec![page()], None);
    queue.compare(namespace, (0, 8), list, CommandOptions::default(), 1).unwrap();
    queue.copy(namespace, 100, &[CopyRange::new(0, 8)], page(), 2).unwrap();
    queue.deallocate(namespace, &[DsmRange::new(0, 8, 200)], page(), 3).unwrap();
    queue.flush(namespace, 4).unwrap();
    let mut ended = 0;
    while queue.in_flight() > 0 {
        ended += queue.wait(|done| assert_eq!(done.status, status::INTERNAL_ERROR)).unwrap();
    }
    assert_eq!((ended, queue.counters().retries), (4, 0));
}

#[test]
fn a_requested_reset_ends_commands() {
    let lost = Rule::new(Fault::Lost).opcode(nvm::READ);
    let mut served = served(5, Faults::new().rule(lost));
    let buf = served.controller.alloc(512).unwrap();
    served.queue.read(&served.namespace, 0, buf, 1).unwrap();
    served.queue.ring();
    served.controller.reset().unwrap();
    assert_eq!(served.status(), status::ABORTED_BY_HOST);
    assert_eq!(served.queue.counters().retries, 0);
}
