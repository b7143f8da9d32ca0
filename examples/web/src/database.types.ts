// Made by `python -m tests.migrations.frontend`; do not edit.
export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[]

export type Database = {
  public: {
    Tables: {
      trained_identities: {
        Row: {
          commit_sha: string | null
          created_at: string
          error_code: string | null
          error_image: number | null
          error_message: string | null
          failed_at: string | null
          huggingface_repo_url: string | null
          id: string
          identity_name: string
          image_paths: string[]
          images_published: number
          model_id: string | null
          next_attempt_at: string | null
          num_training_images: number
          published_at: string | null
          sample_paths: string[] | null
          status: 'pending' | 'publishing' | 'published' | 'training' | 'ready' | 'failed'
          train: boolean
          training_commit_sha: string | null
          training_config: Json | null
          training_error_code: string | null
          training_error_message: string | null
          training_requested_at: string | null
          training_seconds: number | null
          training_url: string | null
          training_waits_until: string | null
          trigger_word: string | null
          updated_at: string
          user_id: string
        }
        Insert: {
          id?: string
          identity_name: string
          image_paths: string[]
          status?: 'pending' | 'publishing' | 'published' | 'training' | 'ready' | 'failed'
          train?: boolean
          trigger_word?: string | null
          user_id?: string
        }
        Update: {
          status?: 'pending' | 'publishing' | 'published' | 'training' | 'ready' | 'failed'
          train?: boolean
        }
        Relationships: []
      }
    }
    Views: { [_ in never]: never }
    Functions: { [_ in never]: never }
    Enums: { [_ in never]: never }
    CompositeTypes: { [_ in never]: never }
  }
}
