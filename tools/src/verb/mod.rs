//! The verbs of the command, each in a file.

pub mod bind;
pub mod blocks;
pub mod cat;
pub mod completions;
pub mod cp;
pub mod demo;
pub mod df;
pub mod du;
pub mod emulate;
pub mod find;
pub mod fsinfo;
pub mod identify;
pub mod list;
pub mod log;
pub mod ls;
pub mod man;
pub mod map;
pub mod ns;
pub mod partitions;
pub mod reset;
pub mod sha256;
pub mod smart;
pub mod stat;
pub mod tar;
pub mod tree;
pub mod write;
