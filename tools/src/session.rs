//! The device that `nvio batch` keeps open for its lines.

use std::cell::RefCell;

use nvio::Volume;

use crate::args::{ControllerArgs, VolumeArgs};

thread_local! {
    static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// The open device.
#[derive(Clone)]
pub struct Session {
    /// The filesystem on it.
    pub volume: Volume,
    /// The arguments of a line that names no other device, namespace, partition or option of a
    /// device. Such a line uses the open device.
    pub plain: VolumeArgs,
    /// The arguments of the batch.
    pub given: VolumeArgs,
}

impl Session {
    /// Opens the device for lines until the result is dropped.
    pub fn begin(self) -> Guard {
        SESSION.set(Some(self));
        Guard(())
    }
}

/// The right to use the session; see [`Session::begin`].
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        SESSION.set(None);
    }
}

/// Returns the open filesystem, if `args` select no other.
pub fn volume(args: &VolumeArgs) -> Option<Volume> {
    let session = SESSION.with_borrow(Clone::clone)?;
    (*args == session.plain).then_some(session.volume)
}

/// Returns the filesystem whose device is open, if `args` select no other device. The namespace may
/// be another one.
pub fn device(args: &ControllerArgs) -> Option<Volume> {
    let session = SESSION.with_borrow(Clone::clone)?;
    let plain = session.plain.controller;
    let same = ControllerArgs { namespace: plain.namespace, ..args.clone() } == plain;
    same.then_some(session.volume)
}

/// Returns namespace and partition of the batch, for a line that names none.
pub fn place() -> (Option<u32>, Option<u32>) {
    SESSION.with_borrow(|session| match session {
        Some(Session { given, .. }) => (given.controller.namespace, given.partition),
        None => (None, None),
    })
}
