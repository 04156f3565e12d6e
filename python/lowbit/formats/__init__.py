"""The data that the ops take: packed codes, quantized weights, numeric modes. Needs torch only."""
