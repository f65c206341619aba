//! The commands: each is a file here and a word in the list below.

macro_rules! commands {
    ($($module:ident => $name:ident),* $(,)?) => {
        $(mod $module;)*

        /// What to do.
        #[derive(Debug, clap::Subcommand)]
        pub(crate) enum Command {
            $($name($module::Arguments)),*
        }

        impl Command {
            /// Does it.
            pub(crate) fn run(self, output: &mut crate::output::Output) -> Result<(), crate::failure::Failure> {
                match self {
                    $(Self::$name(arguments) => arguments.run(output)),*
                }
            }
        }
    };
}

commands! {
    run => Run,
    show => Show,
    tokenize => Tokenize,
    perplexity => Perplexity,
    compare => Compare,
    quantize => Quantize,
    imatrix => Imatrix,
    bench => Bench,
}
