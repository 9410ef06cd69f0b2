//! Integration tests of nvio-driver, in one program, which links faster than a program for each
//! file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::cast_possible_truncation)]

mod controller_memory;
mod corpus;
mod embedded;
mod hostile;
mod interrupts;
mod quirks;
mod retries;
