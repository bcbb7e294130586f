variable "workspace" {
  description = "Terraform's workspace: default, dev, test or prod."
  type        = string

  validation {
    condition     = contains(["default", "dev", "test", "prod"], var.workspace)
    error_message = "There are the workspaces default, dev, test and prod. Another one would be a whole shop by a typing mistake."
  }
}

variable "bucket_suffix" {
  description = "Ends the bucket's name. Lower-case letters, digits and hyphens, ending with a letter or a digit; 1 to 40 characters."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$", var.bucket_suffix))
    error_message = "A bucket's name has lower-case letters, digits and hyphens, and ends with a letter or a digit; the suffix is 1 to 40 of them."
  }
}

variable "tags" {
  description = "Put on everything, beside Project and Workspace."
  type        = map(string)
  default     = {}
}
