//! The nvio command.
fn main() {}
