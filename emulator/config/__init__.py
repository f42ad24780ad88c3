"""What is to be run: scenarios read strictly from TOML, with units, overrides and expectations."""
