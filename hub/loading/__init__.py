"""Loading: from raw BSON to rows, with dead letters for what cannot become one."""
