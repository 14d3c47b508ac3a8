-- Nothing: one unique index finds every row by its id.
SELECT 1;
