//! Inputs from real hosts, files and accounts that once gave a wrong value: each runs through the
//! built program and must give its exact right value. One file per area.

mod decode;
mod delivery;
mod files;
mod files_decoded;
mod http;
mod profile;
mod values;
