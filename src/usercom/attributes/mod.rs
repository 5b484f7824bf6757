//! Custom attributes: which there are, of which type, and what a value becomes under that type.

mod catalogue;
mod convert;

pub(super) use catalogue::{Attribute, AttributeOwner, AttributeState, Catalogue, Creation};
pub(super) use convert::{convert_in, moment, overflows};

pub use convert::{Cardinality, ConversionError, ValueType, convert};
